import json
import subprocess
import sys

import pytest

from apportion._config import Config, validate
from apportion._errors import ApportionError
from apportion.tasks import TasksSpec, load_tasks


class Recipe(Config):
    tasks: TasksSpec


def test_a_recipe_block_round_trips():
    block = {"source": "playground", "seed": 3, "validation": 0.1, "max_length": 64}
    recipe = validate(Recipe, {"tasks": block}, "")
    written = json.loads(recipe.tasks.model_dump_json(exclude_none=True))
    assert block.items() <= written.items()
    assert TasksSpec(**written) == recipe.tasks


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"source": "playgroud"}, r"'playgroud' \(did you mean 'playground'\?\)"),
        ({"source": "playground", "sed": 1}, r"'tasks.sed' \(did you mean 'seed'\?\)"),
        ({"source": "playground", "validaton": 0.1}, r"'tasks.validaton' \(did you mean 'validation'\?\)"),
        ({"source": "playground", "group_by": "task"}, r"Unknown key 'tasks.group_by'"),
        ({"source": "playground", "scale": 3}, r"'tasks.scale' is 3: "),
        ({"source": "natural_instructions", "path": "x", "group_by": "typ"}, r"'tasks.group_by' is 'typ'"),
        ({"source": "jsonl"}, r"'tasks.path' is missing"),
        ({"source": "playground", "validation": 0}, r"'tasks.validation' is 0"),
        ({"source": "playground", "validation": 0.5, "test": 0.5}, r"sum to 1: leave some to train on"),
        ({"source": "playground", "max_length": 1}, r"'tasks.max_length' is 1"),
        ({}, r"'tasks' needs a 'path' to data, or a 'source'"),
        ({"path": 3}, r"'tasks.path' is 3: it must be a path, a list of paths, or a mapping from task name to path"),
        ({"path": []}, r"'tasks.path' is \[\]: it must be a path"),
        ({"path": " ", "source": "jsonl"}, r"'tasks.path' is ' ': it must be a path"),
        ({"path": ["a", 3]}, r"'tasks.path' is \['a', 3\]: it must be a path"),
        ({"path": {"": "a"}}, r"'tasks.path' is .*: each path needs the name of its task"),
        ({"path": "no/such/thing"}, r"no file or folder 'no/such/thing'.*source: hub"),
        ({"path": "${NOT_SET_ANYWHERE}/x"}, r"NOT_SET_ANYWHERE, which is not set"),
    ],
)
def test_bad_blocks(block, message):
    with pytest.raises(ApportionError, match=message):
        validate(Recipe, {"tasks": block}, "").tasks.load()


def test_the_source_follows_from_the_path(tmp_path, jsonl, pairs):
    jsonl(pairs, "a/rows.jsonl")
    (tmp_path / "a" / "README.md").write_text("words")
    assert load_tasks(tmp_path / "a").names == ("rows",)
    (tmp_path / "a" / "b.json").write_text('{"Definition": ["x"], "Instances": []}')
    with pytest.raises(ApportionError, match=r"rows\.jsonl holds rows and .*b\.json one JSON object"):
        load_tasks(tmp_path / "a")
    assert load_tasks([tmp_path / "a" / "rows.jsonl"]).names == ("rows",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ApportionError, match="No file of a known kind"):
        load_tasks(tmp_path / "empty")


def test_the_playground_is_a_path_too():
    assert load_tasks("playground", scale=0.02).names == load_tasks(source="playground", scale=0.02).names
    spec = validate(Recipe, {"tasks": {"path": "playground", "scale": 0.02}}, "").tasks
    assert (spec.source, spec.model_extra) == ("playground", {"scale": 0.02})
    with pytest.raises(ApportionError, match="no file or folder 'playgroun'"):
        load_tasks("playgroun")


def test_variables_and_home_in_paths(tmp_path, jsonl, pairs, monkeypatch):
    jsonl(pairs, "home/rows.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_DATA", str(tmp_path / "home"))
    spec = TasksSpec(path="${MY_DATA}/rows.jsonl")
    assert spec.load().names == TasksSpec(path="~/rows.jsonl").load().names == ("rows",)
    assert spec.model_dump()["path"] == "${MY_DATA}/rows.jsonl"


def test_no_folder_is_guessed_where_the_variable_is_not_set(tmp_path, jsonl, pairs, monkeypatch):
    jsonl(pairs, "shared/data/rows.jsonl")
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.delenv("APPORTION_DATA", raising=False)
    monkeypatch.chdir(tmp_path / "project" / "deep")
    with pytest.raises(ApportionError, match="needs the environment variable APPORTION_DATA, which is not set: export"):
        load_tasks("${APPORTION_DATA}/rows.jsonl")
    monkeypatch.setenv("APPORTION_DATA", str(tmp_path / "shared" / "data"))
    assert load_tasks("${APPORTION_DATA}/rows.jsonl").names == ("rows",)


def test_names_keep_some_tasks_and_their_sides():
    everything = load_tasks(source="playground", scale=0.05)
    some = load_tasks(source="playground", scale=0.05, names=["sort", "copy"])
    assert some.names == ("copy", "sort")
    assert [e.id for e in some["copy"].validation] == [e.id for e in everything["copy"].validation]
    with pytest.raises(ApportionError, match=r"'sortt' under 'tasks.names' \(did you mean 'sort'"):
        load_tasks(source="playground", names=["sortt"])


def test_the_fingerprint_follows_data_and_settings_not_place(tmp_path, jsonl, pairs):
    here, there = jsonl(pairs, "here/rows.jsonl"), jsonl(pairs, "there/rows.jsonl")
    one = TasksSpec(path=str(here)).fingerprint()
    assert one == TasksSpec(path=str(there)).fingerprint() == TasksSpec(path=str(here)).load().fingerprint
    assert one != TasksSpec(path=str(here), validation=0.2).fingerprint()
    assert one != TasksSpec(path=str(here), task_field="completion").fingerprint()
    jsonl([*pairs[:-1], {"prompt": "new", "completion": "row"}], "there/rows.jsonl")
    assert one != TasksSpec(path=str(there)).fingerprint()


def test_importing_tasks_is_light():
    code = "import sys, apportion.tasks; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys, apportion.tasks as t; t.load_tasks(source='playground', scale=0.01); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
