"""The recipe's `thinking` block: what a run trains on, what a plan prices, and what becomes of bad keys."""

import json

import numpy as np
import pytest

from apportion._errors import ApportionError
from apportion.plans.build import load_data
from apportion.plans.export import export_run
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe, sketch
from apportion.plans.run import run_recipe
from apportion.tasks.encoded import IGNORED
from apportion.training.trainer import BudgetTrainer
from tests.training.runs import TINY

THINKING = {
    **TINY,
    "model": {**TINY["model"], "tokenizer": {"train": "character", "tokens": ["<think>", "</think>", "Wait"]}},
    "tasks": {"source": "scratchpad", "examples": 40, "steps": [2, 4], "max_length": 96},
    "budget": 1500,
    "thinking": {"cuts": 0.5},
}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPORTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def recipe(*assignments):
    return parse_recipe(overridden(THINKING, assignments))


def supervised_ends(data):
    """How many train examples of how many supervise their close tag."""
    end = data.tokenizer.convert_tokens_to_ids("</think>")
    labels = [task.train.example(i)[1] for task in data.tasks for i in range(len(task.train))]
    return sum(end in one for one in labels), len(labels)


def test_the_share_of_train_examples_is_cut_and_what_is_held_out_stays():
    whole, cut = (load_data(recipe(f"thinking.cuts={share}")) for share in (0, 0.5))
    assert supervised_ends(whole)[0] == supervised_ends(whole)[1]
    ends, examples = supervised_ends(cut)
    assert 0.3 < ends / examples < 0.7
    for task, other in zip(whole.tasks, cut.tasks, strict=True):
        for i in range(len(task.validation)):
            assert all(map(np.array_equal, task.validation.example(i), other.validation.example(i)))
    assert cut.tasks.fingerprint == whole.tasks.fingerprint
    assert any("with their thinking cut at a random place" in finding for finding in cut.findings)
    assert not any("cut at" in finding for finding in whole.findings)


def test_the_runs_seed_decides_which():
    def tokens(seed):
        data = load_data(recipe(f"seed={seed}"))
        return [data.tasks["steps4"].train.example(i)[0].tolist() for i in range(20)]

    assert tokens(0) == tokens(0) != tokens(1)


def test_a_plan_and_a_percent_are_of_what_is_left():
    whole, cut = (plan_recipe(recipe("budget=100%", f"thinking.cuts={share}")) for share in (0, 1.0))
    assert 0.5 * whole.budget["limit"] < cut.budget["limit"] < 0.9 * whole.budget["limit"]


def test_answers_after_a_cut_are_supervised():
    data = load_data(recipe("thinking.cuts=1.0"))
    for task in data.tasks:
        for i in range(len(task.train)):
            tokens, labels = task.train.example(i)
            end = tokens.tolist().index(data.tokenizer.convert_tokens_to_ids("</think>"))
            assert labels[end] == IGNORED and (labels[end + 1 :] == tokens[end + 1 :]).all() and len(labels[end:]) == 3


def test_a_run_is_resumed_with_the_same_cuts(tmp_path, monkeypatch):
    done = run_recipe(recipe(), tmp_path / "whole")
    assert done.summary["spent"]["train"]["supervised"] <= 1500
    assert any("cut at a random place" in finding for finding in done.summary["findings"])
    real, steps = BudgetTrainer.training_step, iter(range(9))

    def killed(self, *args, **kwargs):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(BudgetTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe(), tmp_path / "killed")
    assert list((tmp_path / "killed" / "checkpoints").iterdir())
    monkeypatch.setattr(BudgetTrainer, "training_step", real)
    with pytest.raises(ApportionError, match=r"'thinking.cuts' is 0.5 there and 0.4 here"):
        run_recipe(recipe("thinking.cuts=0.4"), tmp_path / "killed")
    again = run_recipe(recipe(), tmp_path / "killed")
    files = ("model/model.safetensors", "ledger.json", "validation.json")
    assert all((again.path / file).read_bytes() == (done.path / file).read_bytes() for file in files)
    handed = export_run(done.path, "datasets", tmp_path / "out")
    assert any("cut the thinking of 50% of its train examples" in note for note in handed.notes)


def test_recipes_without_it_are_written_as_they_were():
    resolved = parse_recipe(TINY).resolved()
    assert "thinking" not in resolved and "tokens" not in resolved["model"]["tokenizer"]
    written = recipe().resolved()
    assert written["thinking"] == {"open": "<think>", "close": "</think>", "wait": "Wait", "cuts": 0.5}
    assert parse_recipe(json.loads(json.dumps(written))).resolved() == written


@pytest.mark.parametrize(
    ("assignments", "said"),
    [(["thinking.cut=0.5"], r"Unknown key 'thinking.cut' \(did you mean 'cuts'\?\)"),
     (["thinking.cuts=1.5"], r"'thinking.cuts' is 1.5"),
     (["thinking.cuts=-0.1"], r"'thinking.cuts' is -0.1"),
     (["thinking.cuts=half"], r"'thinking.cuts' is 'half': must be a number"),
     (["thinking=0.5"], r"'thinking' is 0.5: must be a mapping of settings")],
)  # fmt: skip
def test_bad_keys_are_answered_before_the_data_is_read(assignments, said):
    with pytest.raises(ApportionError, match=said):
        sketch(overridden(THINKING, assignments))


@pytest.mark.parametrize(
    ("assignments", "said"),
    [(["thinking.close=<fin>"], r"'thinking.close' is '<fin>', which the model's tokenizer cannot write"),
     (["thinking.open= "], r"'thinking.open' is None|must be text"),
     (["thinking.open='  '"], r"'thinking.open' is empty"),
     (["thinking.close='?'"], r"No train example has thinking between the tags"),
     (["thinking.cuts=0", "thinking.close=<fin>"], r"'thinking.close' is '<fin>'")],
)  # fmt: skip
def test_tags_that_do_not_fit_end_in_a_sentence(assignments, said, tmp_path):
    with pytest.raises(ApportionError, match=said):
        run_recipe(recipe(*assignments), tmp_path / "run")
    assert not (tmp_path / "run" / "history.jsonl").exists()
