"""`apportion evaluate` as a user meets it."""

import json

import pytest

from tests.cli.command import ask
from tests.evaluation.models import choice_task, writing_task

CHOICES = [("the sky is", [" blue", " red"], 0), ("two and two is", [" four", " fish"], 0)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from tests.training.runs import run

    return run(tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture
def tasks(tmp_path):
    return ",".join([choice_task(tmp_path, CHOICES), writing_task(tmp_path, [("copy: ab", "ab")])])


def test_it_says_what_was_scored_and_what_it_cost(capsys, finished, tasks):
    done = ask(capsys, "evaluate", finished, "--tasks", tasks)
    assert done.code == 0, done.err
    record = json.loads((finished / "evaluation.json").read_text())
    for name, task in record["tasks"].items():
        (line,) = [line for line in done.out.splitlines() if f"│ {name}" in line]
        score = task["metrics"][task["metric"]]
        assert f"{score['value']:.3f}" in line and task["metric"] in line and f" {task['examples']} " in line
    assert "charged to 'evaluate'" in done.out and "mean of the sets" in done.out
    again = ask(capsys, "evaluate", finished, "--tasks", tasks)
    assert "Nothing was left to ask." in again.out


def test_json_is_one_line_of_all_runs(capsys, finished, tasks):
    done = ask(capsys, "evaluate", finished, "--tasks", tasks, "--json")
    (said,) = json.loads(done.out)
    assert done.code == 0 and said["path"] == str(finished)
    assert said["tasks"] == json.loads((finished / "evaluation.json").read_text())["tasks"]


def test_the_shipped_benchmarks_run_on_a_model_of_characters(capsys, finished):
    """Questions longer than the model reads are cut from the left, as the harness does."""
    done = ask(capsys, "evaluate", finished, "--tasks", "bbh_navigate,bbh_snarks", "--limit", "3", "--json")
    assert done.code == 0, done.err
    (said,) = json.loads(done.out)
    assert said["tasks"]["bbh_navigate"]["examples"] == 3
    assert all(task["spent"]["flops"] > 0 for task in said["tasks"].values())


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--tasks", "bbhh"], ["no benchmark 'bbhh'", "did you mean 'bbh'"]),
        (["--tasks", ""], ["'evaluate.tasks'"]),
        (["--tasks", "bbh", "--limit", "0"], ["--limit", "greater than or equal to 1"]),
        (["--tasks", "bbh", "--shots", "-1"], ["--shots"]),
        (["--tasks", "bbh", "--shot", "1"], ["--shot", "--shots"]),
        (["--tasks", "gsm8k"], ["'gsm8k' does not fit this model", "256"]),
        (["--tasks", "arc_easy"], ["'arc_easy'", "Hub, which cannot be reached"]),
        ([], ["names no benchmarks", "--tasks"]),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_changes_nothing(capsys, finished, arguments, fragments):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    ask(capsys, "evaluate", finished, *arguments).refuses(*fragments)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_run_is_refused(capsys, tmp_path, what):
    path = tmp_path / "it"
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("x")
    ask(capsys, "evaluate", path, "--tasks", "bbh").refuses(str(path))


def test_a_task_whose_data_is_broken_is_said_by_name(capsys, finished, tmp_path):
    file = choice_task(tmp_path, CHOICES, name="broken")
    (tmp_path / "broken.jsonl").write_text("{not json\n")
    ask(capsys, "evaluate", finished, "--tasks", file).refuses("broken.yaml", "cannot be read")


def test_a_plan_lists_them_with_what_they_take(capsys, recipe):
    done = ask(capsys, "plan", recipe, "--set", "evaluate={tasks: [bbh_navigate], limit: 2}")
    assert done.code == 0, done.err
    assert "then benchmarks, at most" in done.out.replace("\n", " ") and "│ evaluate" in done.out
