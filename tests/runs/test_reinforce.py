"""What a folder says of a run of reinforcement, and that other runs are none."""

import pytest

from apportion._errors import ApportionError
from apportion.runs import RunFolder, read_rollouts, read_run
from apportion.runs.curves import generated_tokens
from apportion.runs.equality import differences
from apportion.runs.reinforce import named
from tests.reports.reinforced import said, write_reinforced
from tests.reports.synthetic import recipe, write_run


def test_it_is_told_apart_by_its_recipe_or_summary(tmp_path):
    run = read_run(write_reinforced(tmp_path / "rl", steps=2, measured=1))
    assert run.reinforced and run.method == "brpo" and run.name == "brpo, uniform" and run.seed == 0
    assert run.final == said(tmp_path / "rl", "summary.json")["final"]
    assert "brpo, seed 0, area" in repr(run)
    killed = read_run(write_reinforced(tmp_path / "killed", steps=2, measured=1, stop=0.5))
    assert killed.reinforced and not killed.finished and killed.name == "brpo, uniform" and killed.final == {}
    text = (tmp_path / "rl" / "recipe.yaml").read_text()
    (tmp_path / "rl" / "recipe.yaml").write_text(text[text.index("start:") :])
    assert read_run(tmp_path / "rl").reinforced and read_run(tmp_path / "rl").rl == {}


def test_other_runs_are_none(tmp_path):
    write_run(tmp_path / "old", "adapt", records=5)
    with RunFolder.create(tmp_path / "null", recipe("adapt", 0, 1000) | {"rl": None}) as folder:
        folder.append_history({"step": 0, "spent": {}, "seconds": 0.0})
    for name in ("old", "null"):
        run = read_run(tmp_path / name)
        assert not run.reinforced and run.rl == {} and run.name == run.method == "adapt"


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"type": "brpo", "prior": "linear", "baseline": "brpo"}, "brpo, linear"),
        ({"type": "brpo", "prior": "uniform", "baseline": "group"}, "brpo, uniform, baseline group"),
        ({"type": "brpo", "prior": [0.5, 0.25, 0.25]}, "brpo, 0.5/0.25/0.25"),
        ({"type": "grpo", "prior": None}, "grpo"),
    ],
)
def test_arms_are_called_by_what_sets_them_apart(block, name):
    assert named(block) == name


def test_rollouts_are_read_line_by_line(tmp_path):
    path = write_reinforced(tmp_path / "rl", steps=3, measured=1)
    lines = said(path, "rollouts.jsonl")
    assert [line.pop("schema") for line in lines] == [1] * 9 and read_rollouts(path) == lines
    file = path / "rollouts.jsonl"
    file.write_text(file.read_text()[:-40])
    assert read_rollouts(path) == lines[:-1]  # the last line has no end
    file.write_text('{"schema": 1, "step": 1}\n{"schema": 2}\n')
    with pytest.raises(ApportionError, match=r"Line 2 of '.*rollouts.jsonl' has schema 2"):
        read_rollouts(path)
    file.unlink()
    assert read_rollouts(path) == []


def test_generated_tokens_are_those_of_generate_alone(tmp_path):
    spent = {"generate": {"thinking": 5, "answer": 3, "inserted": 2, "processed": 99}, "evaluate": {"thinking": 7}}
    assert generated_tokens(spent) == 10
    assert generated_tokens({"generate": {"processed": 4}}) == generated_tokens({}) == 0


def test_runs_that_began_elsewhere_or_were_measured_elsewhere_cannot_be_compared(tmp_path):
    write_reinforced(tmp_path / "a", steps=2, measured=1)
    write_reinforced(tmp_path / "b", "grpo", steps=2, measured=1)
    assert differences({"a": [read_run(tmp_path / "a")], "b": [read_run(tmp_path / "b")]}) == []
    file = tmp_path / "b" / "recipe.yaml"
    file.write_text(file.read_text().replace("runs/sft", "runs/other"))
    (tmp_path / "b" / "summary.json").write_text((tmp_path / "b" / "summary.json").read_text().replace('"8":', '"9":'))
    found = differences({"a": [read_run(tmp_path / "a")], "b": [read_run(tmp_path / "b")]})
    assert found == [
        "thinking budgets measured (8, 16, 32, 48 in a, 9, 16, 32, 48 in b)",
        "start (runs/sft in a, runs/other in b)",
    ]


def test_each_seed_may_have_begun_with_a_run_of_its_own(tmp_path):
    runs = {}
    for kind in ("brpo", "grpo"):
        for seed in (0, 1):
            path = write_reinforced(tmp_path / kind / f"seed-{seed}", kind, seed, steps=2, measured=1)
            file = path / "recipe.yaml"
            file.write_text(file.read_text().replace("runs/sft", f"runs/sft-{seed}"))
            runs.setdefault(kind, []).append(read_run(path))
    assert differences(runs) == []
