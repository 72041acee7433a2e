import gzip
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apportion._errors import ApportionError
from apportion.tasks import SOURCES, load_tasks


def everything(tasks):
    return {task.name: [*task.train, *task.validation, *task.test] for task in tasks}


def instructions(name="t", category="Kind One", n=12, **more):
    instances = [{"id": f"{name}-{i}", "input": f"in {i}", "output": [f"out {i}", f"also {i}"]} for i in range(n)]
    return {"Definition": [f"Do {name}."], "Categories": [category], "Instances": instances, **more}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "b.json").write_text(json.dumps(instructions("b")))
    (tmp_path / "deep" / "er" / "a.json.gz").write_bytes(gzip.compress(json.dumps(instructions("a")).encode()))
    (tmp_path / "c.json").write_text(json.dumps(instructions("c", "Another", URL=[float("nan")])))
    (tmp_path / "LICENSE").write_text("not data")
    return tmp_path


class TestNaturalInstructions:
    def test_files_at_any_depth_are_tasks(self, folder):
        tasks = load_tasks(folder)
        assert tasks.names == ("c", "b", "a")
        example = next(e for e in everything(tasks)["a"] if e.id == "a-3")
        assert example.prompt == "Do a.\n\nin 3"
        assert example.completion == "out 3"
        assert example.references == ("out 3", "also 3")

    def test_categories_join_files(self, folder):
        tasks = load_tasks(folder, group_by="category")
        assert tasks.names == ("Another", "Kind One")
        assert {e.id for e in everything(tasks)["Kind One"]} == {f"{t}-{i}" for t in "ab" for i in range(12)}

    def test_one_input_is_on_one_side_under_any_definition(self, folder):
        (folder / "d.json").write_text(json.dumps({**instructions("d", n=12), "Definition": ["Do another thing."]}))
        tasks = load_tasks(folder, validation=0.3)
        for split in ("train", "validation"):
            inputs = [{e.prompt.split("\n\n")[1] for e in task.split(split)} for task in tasks]
            assert all(one == inputs[0] for one in inputs)

    def test_text_files_beside_them_are_left_out(self, folder):
        (folder / "test_tasks.txt").write_text("c")
        tasks = load_tasks(folder)
        assert tasks.names == ("c", "b", "a")
        assert tasks.findings[0].startswith("1 file of another kind than .json (such as ")

    def test_one_file(self, folder):
        assert load_tasks(folder / "deep" / "er" / "a.json.gz").names == ("a",)

    def test_two_files_of_one_name(self, folder):
        (folder / "b.json").write_text(json.dumps(instructions()))
        with pytest.raises(ApportionError, match=r"'b': .*b\.json and .*b\.json; rename"):
            load_tasks(folder)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"Definition": ["x"],\n "Instances": [}', r"c\.json:2 is not JSON"),
            (
                '{"examples": [], "canary": ""}',
                r"holds an object with canary, examples: .* list of rows, .*'Definition'",
            ),
            ('{"Definition": ["x"], "Instances": [{"input": "x", "target": "y"}]}', "instance 0 .* has input, target"),
            ('{"Definition": ["x"], "Instances": [{"input": "x", "output": [1]}]}', "instance 0 "),
            ('{"Definition": ["x"], "Instances": []}', "'c' .* is empty"),
            ("3", r"c\.json holds int: a \.json file must hold"),
        ],
    )
    def test_broken_files_are_named(self, folder, content, message):
        (folder / "c.json").write_text(content)
        with pytest.raises(ApportionError, match=message):
            load_tasks(folder, source="natural_instructions")

    def test_no_category(self, folder):
        (folder / "c.json").write_text(json.dumps({**instructions(), "Categories": []}))
        with pytest.raises(ApportionError, match=r"c\.json has no 'Categories': group by task"):
            load_tasks(folder, group_by="category")


SHAPES = {
    "pairs": ({"prompt": "say {}", "completion": "done {}"}, "say {}", "done {}"),
    "alpaca": ({"instruction": "say {}", "input": "now", "output": "done {}"}, "say {}\n\nnow", "done {}"),
    "alpaca without input": ({"instruction": "say {}", "input": "", "output": "done {}"}, "say {}", "done {}"),
    "text": ({"text": "said {}"}, "", "said {}"),
    "messages": (
        {"messages": [{"role": "user", "content": "say {}"}, {"role": "assistant", "content": "done {}"}]},
        "say {}",
        "done {}",
    ),
    "messages in pairs": (
        {
            "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "say {}"}],
            "completion": [{"role": "assistant", "content": "done {}"}],
        },
        "be brief\nsay {}",
        "done {}",
    ),
}


def filled(value, i):
    return json.loads(json.dumps(value).replace("{}", str(i)))


class TestRows:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "parquet"])
    def test_shapes(self, tmp_path, shape, form):
        row, prompt, completion = SHAPES[shape]
        rows = [filled(row, i) for i in range(20)]
        file = tmp_path / f"mine.{form}"
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        else:
            text = json.dumps(rows) if form == "json" else "\n\n".join(map(json.dumps, rows)) + "\n"
            file.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
        examples = everything(load_tasks(file))["mine"]
        assert sorted((e.prompt, e.completion) for e in examples) == sorted(
            (prompt.format(i), completion.format(i)) for i in range(20)
        )
        assert all(bool(e.messages) == ("messages" in shape) for e in examples)

    def test_csv(self, tmp_path):
        lines = ["prompt,completion", *(f'"a, {i}\nb",{i}' for i in range(20))]
        (tmp_path / "mine.csv").write_text("\n".join(lines), encoding="utf-8-sig")
        examples = everything(load_tasks(tmp_path))["mine"]
        assert {(e.prompt, e.completion) for e in examples} == {(f"a, {i}\nb", str(i)) for i in range(20)}

    def test_a_field_names_the_tasks(self, jsonl, tmp_path, pairs):
        jsonl([{**row, "kind": f"k{i % 2}"} for i, row in enumerate(pairs)], "one.jsonl")
        jsonl([{"prompt": f"more {i}", "completion": "x", "kind": "k1"} for i in range(5)], "two.jsonl")
        tasks = everything(load_tasks(tmp_path, task_field="kind"))
        assert {name: len(examples) for name, examples in tasks.items()} == {"k0": 15, "k1": 20}

    def test_files_are_tasks_and_ids_are_kept(self, jsonl, tmp_path, pairs):
        jsonl(pairs, "one.jsonl")
        jsonl([{**row, "id": 100 + i} for i, row in enumerate(pairs)], "two.jsonl")
        tasks = everything(load_tasks(tmp_path))
        assert {e.id for e in tasks["one"]} == {f"one-{i}" for i in range(30)}
        assert {e.id for e in tasks["two"]} == {str(100 + i) for i in range(30)}

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"prompt": "x", "comp', r"rows\.jsonl:3 is not JSON"),
            ("[1]", r"rows\.jsonl:3 must be an object with named fields, not list"),
            (
                '{"question": "x", "answer": "y"}',
                r"rows\.jsonl:3 has the fields question, answer; a row needs prompt and",
            ),
            ('{"prompt": "x", "completion": 3}', r"rows\.jsonl:3: 'completion' must be text, not int"),
            ('{"messages": [{"from": "x"}]}', r"rows\.jsonl:3: 'messages' must be a list of messages"),
        ],
    )
    def test_broken_lines_are_named(self, jsonl, pairs, line, message):
        file = jsonl(pairs[:2])
        file.write_text(file.read_text() + "\n" + line)
        with pytest.raises(ApportionError, match=message):
            load_tasks(file)

    def test_null_and_absent_turns_are_blank_and_dropped(self, jsonl, pairs):
        silent = {"messages": [{"role": "user", "content": "hello?"}]}
        tasks = load_tasks(jsonl([*pairs, {"prompt": "x", "completion": None}, silent]))
        assert len(everything(tasks)["rows"]) == 30
        assert "2 examples with a blank completion: dropped." in tasks.findings

    def test_not_utf8(self, jsonl, pairs):
        file = jsonl(pairs)
        file.write_bytes(file.read_bytes() + b'\n{"prompt": "caf\xe9"}')
        with pytest.raises(ApportionError, match=r"rows\.jsonl:31 is not UTF-8"):
            load_tasks(file)

    @pytest.mark.parametrize("cut", [0, 10, -6])
    def test_broken_gzip(self, tmp_path, cut):
        whole = gzip.compress(b'{"text": "x"}\n' * 100)
        (tmp_path / "x.jsonl.gz").write_bytes(b"no gzip" if cut == 0 else whole[:cut])
        with pytest.raises(ApportionError, match=r"x\.jsonl\.gz is not a whole gzip file"):
            load_tasks(tmp_path)

    def test_broken_parquet(self, tmp_path):
        (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
        with pytest.raises(ApportionError, match=r"x\.parquet is not a whole Parquet file"):
            load_tasks(tmp_path)

    @pytest.mark.parametrize("line", ["only", "a,b,c", '"open'])
    def test_broken_csv(self, tmp_path, line):
        (tmp_path / "x.csv").write_text(f"prompt,completion\na,b\n{line}\n")
        with pytest.raises(ApportionError, match=r"x\.csv:3 "):
            load_tasks(tmp_path)

    def test_a_row_without_the_task_field(self, jsonl, pairs):
        with pytest.raises(ApportionError, match=r"rows\.jsonl:1 has no 'promt'.*did you mean 'prompt'"):
            load_tasks(jsonl(pairs), task_field="promt")

    def test_an_unreadable_file(self, tmp_path):
        (tmp_path / "x.jsonl").symlink_to(tmp_path / "gone")
        with pytest.raises(ApportionError, match=r"no file or folder|No .*jsonl"):
            load_tasks(tmp_path / "x.jsonl")


class TestHub:
    @pytest.fixture
    def saved(self, tmp_path, pairs):
        import datasets

        datasets.disable_progress_bars()
        data = datasets.Dataset.from_list(pairs)
        data.save_to_disk(tmp_path / "one")
        datasets.DatasetDict({"train": data, "rest": data.select(range(10))}).save_to_disk(tmp_path / "two")
        return tmp_path

    def test_saved_data_sets(self, saved):
        assert len(everything(load_tasks(saved / "one"))["one"]) == 30
        assert len(everything(load_tasks(saved / "two", split="rest"))["two"]) == 10
        named = {"first": str(saved / "one"), "second": str(saved / "two")}
        from apportion.tasks import TasksSpec

        spec = TasksSpec(source="hub", path=named)
        assert spec.load().names == ("first", "second")
        assert spec.fingerprint() == spec.load().fingerprint
        assert (
            spec.fingerprint() != TasksSpec(source="hub", path=[str(saved / "one"), str(saved / "two")]).fingerprint()
        )

    def test_columns_and_bad_rows(self, saved):
        import datasets

        rows = [{"question": f"q {i}", "completion": f"a {i}"} for i in range(20)] + [
            {"question": None, "completion": "x"}
        ]
        datasets.Dataset.from_list(rows).save_to_disk(saved / "named")
        tasks = load_tasks(saved / "named", columns={"prompt": "question"})
        assert {e.prompt for e in everything(tasks)["named"]} >= {f"q {i}" for i in range(20)}
        with pytest.raises(ApportionError, match=r"21 bad rows, the first 5: .*row 0 has the fields question, comp"):
            load_tasks(saved / "named")
        with pytest.raises(ApportionError, match=r"a field that no row has \(did you mean 'question'"):
            load_tasks(saved / "named", columns={"prompt": "questions"})

    def test_no_such_split(self, saved):
        with pytest.raises(ApportionError, match=r"no split 'trian' \(did you mean 'train'\?\)"):
            load_tasks(saved / "two", split="trian")

    def test_two_of_one_name(self, saved):
        from apportion.tasks import TasksSpec

        with pytest.raises(ApportionError, match="Two tasks are called 'one'"):
            TasksSpec(source="hub", path=["a/one", "b/one"]).load()

    def test_a_name_out_of_reach_is_one_sentence(self):
        code = (
            "from apportion.tasks import load_tasks; from apportion._errors import ApportionError\n"
            "try: load_tasks('nobody/nothing', source='hub')\n"
            "except ApportionError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("Cannot load the data set 'nobody/nothing': check the name and the network")
        assert done.stdout.count("\n") == 1


def test_every_source_is_a_config_with_the_two_calls():
    for name in SOURCES:
        cls = SOURCES.get(name)
        assert cls.__doc__
        assert {"read", "digest"} <= set(dir(cls))
