"""Benchmarks are a stage: priced before, charged as they are worked on, kept task by task, and no part of training."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

import apportion as ap
from apportion._errors import ApportionError
from apportion.evaluation import harness
from apportion.plans.compare import compare_recipe
from apportion.plans.evaluate import evaluate_run
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.runs import RunFolder
from tests.evaluation.models import choice_task, writing_task
from tests.training.hypernets import SCRATCH
from tests.training.runs import TINY, history, ledger, run, weights

QUESTIONS = [("copy: abc", "abc"), ("reverse: abc", "cba"), ("add 1 and 2", "3")]
CHOICES = [("the sky is", [" blue", " made of stone", " seven"], 0), ("two and two is", [" four", " fish"], 0)]


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    return [choice_task(folder, CHOICES), writing_task(folder, QUESTIONS)]


def asking(tasks, **settings):
    return f"evaluate={json.dumps({'tasks': tasks, **settings})}"


def evaluation(path):
    return json.loads((path / "evaluation.json").read_text())


def scores(path):
    """What was measured, without what differs from one time to the next."""
    found = evaluation(path)
    return {name: {k: v for k, v in task.items() if k != "seconds"} for name, task in found["tasks"].items()}


def answers(path):
    return {file.name: file.read_bytes() for file in (path / "evaluation").iterdir()}


COLUMNS = ("supervised", "processed", "padded", "flops")


def summed(found):
    return {key: sum(task["spent"][key] for task in found.values()) for key in COLUMNS}


def charged(run):
    return {key: ledger(run)["accounts"]["evaluate"][key] for key in COLUMNS}


def test_in_a_recipe_and_afterwards_are_the_same(tmp_path, tasks):
    inside = run(tmp_path / "inside", asking(tasks))
    after = run(tmp_path / "after")
    done = ap.evaluate(after, tasks)
    assert done.asked == 2 and scores(inside.path) == scores(after.path) == {**scores(inside.path)}
    assert answers(inside.path) == answers(after.path)
    assert weights(inside) == weights(after)
    accounts = [ledger(run)["accounts"] for run in (inside, after)]
    assert accounts[0] == accounts[1] and charged(inside) == summed(scores(inside.path))
    assert accounts[0]["evaluate"]["flops"] > 0


def test_an_adapter_answers_as_it_was_trained(tmp_path, tasks):
    lora = "lora={r: 2, alpha: 4}"
    inside = run(tmp_path / "inside", lora, asking(tasks))
    after = run(tmp_path / "after", lora)
    ap.evaluate(after.path, tasks)
    assert answers(inside.path) == answers(after.path)
    assert summed(scores(inside.path)) == summed(scores(after.path))


def test_in_mixed_precision_the_live_model_answers_as_the_loaded_one(tmp_path, tasks):
    inside = run(tmp_path / "inside", "training.bf16=true", asking(tasks))
    after = run(tmp_path / "after", "training.bf16=true")
    ap.evaluate(after.path, tasks)
    assert scores(inside.path) == scores(after.path) and answers(inside.path) == answers(after.path)


def test_what_is_there_is_not_asked_again(tmp_path, tasks, monkeypatch):
    done = run(tmp_path / "run")
    ap.evaluate(done, tasks[:1])
    before = scores(done.path)
    asked = []
    real = harness.run
    monkeypatch.setattr(harness, "run", lambda benchmark, *rest: asked.append(benchmark.name) or real(benchmark, *rest))
    assert ap.evaluate(done, tasks).asked == 1 and asked == ["writing"]
    assert ap.evaluate(done, tasks).asked == 0 and asked == ["writing"]
    assert scores(done.path)["choices"] == before["choices"]
    assert charged(done) == summed(scores(done.path))


def test_measured_in_another_way_it_is_asked_again_and_both_are_charged(tmp_path, tasks):
    done = run(tmp_path / "run")
    ap.evaluate(done, tasks[1], limit=1)
    first = summed(scores(done.path))
    ap.evaluate(done, tasks[1])
    second = summed(scores(done.path))
    assert second["flops"] > first["flops"]
    for key, spent in charged(done).items():
        assert spent == first[key] + second[key]
    ap.evaluate(done, tasks[0])
    assert ledger(done)["accounts"]["evaluate"]["processed"] > first["processed"] + second["processed"]


def test_the_plan_says_what_they_take_at_most(tmp_path, tasks):
    """Exactly where nothing is written."""
    for part, exact in ((tasks[:1], True), (tasks, False)):
        recipe = parse_recipe(overridden(TINY, [asking(part)]))
        plan = plan_recipe(recipe)
        assert [stage["name"] for stage in plan.stages] == ["train", "evaluate"]
        spent = ledger(run_recipe(recipe, tmp_path / f"run-{exact}"))["accounts"]["evaluate"]
        planned = plan.accounts["evaluate"]
        for key in ("supervised", "processed", "flops"):
            assert planned[key] == pytest.approx(spent[key]) if exact else planned[key] >= spent[key] > 0


def test_while_training_goes_on_they_are_noted_and_change_nothing(tmp_path, tasks):
    plain = run(tmp_path / "plain", "seed=1")
    asked = run(tmp_path / "asked", "seed=1", asking(tasks, every="50%"))
    assert weights(plain) == weights(asked)
    noted = [record for record in history(asked) if "evaluation" in record]
    assert len(noted) == 2 and noted[0]["step"] == 0
    assert all(set(record["evaluation"]) == {"choices", "writing"} for record in noted)
    spent = [record["spent"].get("evaluate", {"flops": 0.0})["flops"] for record in history(asked)]
    assert spent == sorted(spent) and 0 < spent[-1] < ledger(asked)["accounts"]["evaluate"]["flops"]
    drop = ("evaluation", "spent", "seconds")
    same = [[{k: v for k, v in r.items() if k not in drop} for r in history(r_)] for r_ in (plain, asked)]
    assert same[0] == same[1]
    trained = [ledger(r_)["accounts"]["train"] for r_ in (plain, asked)]
    assert trained[0] == trained[1]
    planned = plan_recipe(parse_recipe(overridden(TINY, ["seed=1", asking(tasks[:1], every="50%")])))
    exact = run(tmp_path / "exact", "seed=1", asking(tasks[:1], every="50%"))
    assert planned.accounts["evaluate"]["flops"] == pytest.approx(ledger(exact)["accounts"]["evaluate"]["flops"])


def test_no_budget_pays_for_them(tmp_path, tasks):
    budget = "budget={total: 3e9 FLOPs}"
    plain = run(tmp_path / "plain", budget)
    asked = run(tmp_path / "asked", budget, asking(tasks, every="25%"))
    assert weights(plain) == weights(asked)
    assert ap.read_run(plain.path).total_flops == ap.read_run(asked.path).total_flops <= 3e9
    assert ap.read_run(asked.path).spent["evaluate"]["flops"] > 0


COMMAND = (sys.executable, "-c", "from apportion.cli.main import main; main()")


def killed_when(command, there):
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not there() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert there(), "it ended before it could be stopped"


def test_killed_between_tasks_the_same_command_ends_as_never_killed(tmp_path):
    """Of a whole run, trained and asked; and what was asked before is not asked again."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    tasks = [writing_task(folder, QUESTIONS * 40, name=f"task{i}", most=32) for i in range(4)]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(overridden(TINY, [asking(tasks)])))
    whole, part = tmp_path / "whole", tmp_path / "part"
    command = [*COMMAND, "train", str(file), "--json", "--out"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    first = part / "evaluation" / "task0.jsonl"
    killed_when([*command, str(part)], lambda: first.exists() and (part / "evaluation.json").exists())
    assert len(evaluation(part)["tasks"]) < 4
    before = evaluation(part)["tasks"]
    subprocess.run([*command, str(part)], check=True, capture_output=True)
    after = evaluation(part)["tasks"]
    assert all(after[name]["seconds"] == task["seconds"] for name, task in before.items())
    assert scores(whole) == scores(part) and answers(whole) == answers(part)
    for name in ("ledger.json", "mixture.json", "model/model.safetensors"):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name


def test_a_tokenizer_that_was_asked_with_is_saved_as_it_was(tmp_path, tasks):
    saved = []
    for name in ("before", "after"):
        made = run(tmp_path / name, "seed=1")
        saved.append((made.path / "model" / "tokenizer.json").read_bytes())
        plan_recipe(parse_recipe(overridden(TINY, ["seed=1", asking(tasks)])))
    assert saved[0] == saved[1]  # the harness sets padding, on a copy


def test_a_comparison_asks_every_run_and_goes_on_with_those_it_has(tmp_path, tasks):
    values = overridden(TINY, ["arms={uniform: {mixture: uniform}, half: {mixture: temperature}}"])
    compare_recipe({**values, "evaluate": {"tasks": tasks}}, ["uniform", "half"], [0], tmp_path / "cmp")
    (tmp_path / "cmp" / "half" / "seed-0" / "evaluation.json").unlink()
    compare_recipe({**values, "evaluate": {"tasks": tasks}}, ["uniform", "half"], [0], tmp_path / "cmp")
    for arm in ("uniform", "half"):
        assert set(scores(tmp_path / "cmp" / arm / "seed-0")) == {"choices", "writing"}


def test_trials_of_a_search_are_asked_nothing(tmp_path, tasks):
    done = run(tmp_path / "run", "mixture=doremi", asking(tasks))
    assert (done.path / "evaluation.json").exists()
    assert not list((done.path / "trials").rglob("evaluation*"))


class TestRefusals:
    def test_a_run_that_is_not_finished(self, tmp_path, tasks):
        done = run(tmp_path / "run")
        (done.path / "summary.json").unlink()
        with pytest.raises(ApportionError, match="is not finished"):
            ap.evaluate(done.path, tasks)

    def test_nothing_to_ask(self, tmp_path):
        done = run(tmp_path / "run")
        with pytest.raises(ApportionError, match="names no benchmarks"):
            ap.evaluate(done.path)

    def test_a_model_that_answers_nothing(self, tmp_path, tasks):
        with pytest.raises(ApportionError, match="'evaluate' does not go with"):
            parse_recipe({**SCRATCH, "evaluate": {"tasks": tasks}})

    def test_what_cannot_be_read_is_said_before_anything_is_trained(self, tmp_path):
        with pytest.raises(ApportionError, match="no benchmark 'gsm8'"):
            run(tmp_path / "run", asking(["gsm8"]))
        assert not (tmp_path / "run").exists()

    def test_a_folder_in_use(self, tmp_path, tasks):
        done = run(tmp_path / "run")
        with RunFolder.reopen(done.path), pytest.raises(ApportionError, match="in use by another live run"):
            evaluate_run(done.path, parse_recipe(overridden(TINY, [asking(tasks)])).evaluate)
