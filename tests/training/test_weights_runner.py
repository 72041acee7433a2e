"""Weights in a run: the same however a step is cut, resumed exactly, within the budget, with every mixture."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load

from apportion._errors import ApportionError
from apportion.plans.build import load_data
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.weights import WEIGHTS
from tests.training.runs import TINY, history, ledger, run, weights

WEIGHED = [
    "{type: adapt, refresh: 4}",
    "{type: adapt, refresh: 4, normalise: true, centred: true, tau: 0.05}",
    "bm25",
    "{type: bm25, normalise: true}",
    "linupper",
]
SGD = ("training.optim=sgd", "training.learning_rate=0.1", "training.max_grad_norm=0.5")
CUT = ("training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=8")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """By SGD on a small budget; a run that several tests read is made for the first of them."""

    @cache
    def made(*assignments):
        return run(tmp_path_factory.mktemp("once") / "run", *SGD, "budget=900", *assignments)

    return made


@pytest.mark.parametrize("block", WEIGHED)
@pytest.mark.parametrize("mixture", ["uniform", "adapt"])
def test_eight_micro_batches_of_one_are_one_of_eight(once, block, mixture):
    """To 1e-6 in every parameter, with clipping after the mean form's division.

    LinUpper divides by the range of a step's losses, which enlarges their rounding in the recorded spread.
    """
    common = (f"weights={block}", f"mixture={mixture}")
    whole, parts = once(*common), once(*common, *CUT)
    ours, theirs = load(weights(parts)), load(weights(whole))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
    for a, b in zip(history(parts), history(whole), strict=True):
        assert a.get("weights") == (b.get("weights") and pytest.approx(b["weights"], abs=5e-6))
        assert a.get("loss") == pytest.approx(b.get("loss"), abs=1e-6)
        assert a["mixture"] == pytest.approx(b["mixture"], abs=1e-4)


@pytest.mark.parametrize("block", WEIGHED)
def test_weights_change_what_is_learnt(once, block):
    plain, weighed = once(), once(f"weights={block}", "mixture=uniform")
    assert weights(plain) != weights(weighed)
    assert all("weights" not in record for record in history(plain))
    for record in history(weighed)[1:-1]:
        assert record["weights"]["mean"] > 0 and record["weights"]["std"] > 0
        assert 0 < record["weights"]["ess"] < 1


def test_the_mean_form_is_the_sum_form_rescaled_by_each_steps_weights(tmp_path):
    """One SGD step without clipping: the two updates differ by the factor N / sum of w, which is one over the mean."""
    one = ("training.optim=sgd", "training.learning_rate=0.1", "training.max_grad_norm=0", "tasks.names=[sort]")
    one = (*one, "training.lr_scheduler_type=constant", "training.per_device_train_batch_size=400", "budget=1000")
    free = run(tmp_path / "free", *one, "training.learning_rate=1e-30")
    start = load(weights(free))
    moved = {}
    for form in ("false", "true"):
        done = run(tmp_path / form, *one, f"weights={{type: adapt, normalise: {form}}}")
        trained = load(weights(done))
        moved[form] = {name: trained[name] - start[name] for name in start}
        mean = history(done)[1]["weights"]["mean"]
        assert history(done)[1]["step"] == history(done)[-1]["step"] == 1
    for name, change in moved["true"].items():
        torch.testing.assert_close(change, moved["false"][name] / mean, rtol=1e-3, atol=3e-7)


def test_the_recorded_loss_is_unweighted(tmp_path):
    """At a learning rate of 0 nothing moves, so the recorded losses are those of training without weights."""
    still = "training.learning_rate=1e-30"
    plain = [record["loss"] for record in history(run(tmp_path / "plain", still))[1:-1]]
    for number, block in enumerate(WEIGHED):
        weighed = history(run(tmp_path / str(number), still, f"weights={block}"))[1:-1]
        assert [record["loss"] for record in weighed] == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        ("weights={type: adapt, refresh: 7, normalise: true}", "mixture={type: adapt, refresh: 5, reads: 2}"),
        ("weights={type: adapt, refresh: 50}", "packing=true"),
        ("weights=linupper", "training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2"),
        ("weights=bm25", "lora={r: 4, dropout: 0.1}"),
    ],
)
def test_stopped_and_resumed_is_never_stopped(tmp_path, settings):
    recipe = parse_recipe(
        overridden(TINY, [*settings, "model.config.attention_dropout=0.1", "validation.every=0.15", "budget=2000"])
    )
    whole = run_recipe(recipe, tmp_path / "whole")

    def stop(record, progress):
        if progress > 0.55:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "broken", stop)
    assert list((tmp_path / "broken" / "checkpoints").glob("step-*"))
    broken = run_recipe(recipe, tmp_path / "broken")
    name = "adapter_model.safetensors" if "lora" in settings[1] else "model.safetensors"
    assert weights(broken, name) == weights(whole, name)
    assert (broken.path / "ledger.json").read_bytes() == (whole.path / "ledger.json").read_bytes()
    bare = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in history(done)] for done in (broken, whole)
    ]
    assert bare[0] == bare[1]


def test_a_run_is_not_resumed_with_other_anchors(tmp_path):
    file = tmp_path / "anchors.jsonl"
    file.write_text(json.dumps({"prompt": "a", "completion": "b"}))
    recipe = parse_recipe(overridden(TINY, [f"weights={{type: adapt, files: ['{file}']}}", "validation.every=0.2"]))

    def stop(record, progress):
        if progress > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "run", stop)
    file.write_text(json.dumps({"prompt": "a", "completion": "c"}))
    with pytest.raises(ApportionError, match=r"'weights\.files' changed since this run began"):
        run_recipe(recipe, tmp_path / "run")


@pytest.mark.parametrize("block", ["{type: adapt, refresh: 3, anchors: 20}", "linupper"])
@pytest.mark.parametrize("mixture", ["uniform", "loss", "adapt"])
def test_a_flops_budget_covers_anchors_and_second_looks(tmp_path, block, mixture):
    cut = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
    done = run(tmp_path / "run", "budget=6e9 FLOPs", f"mixture={mixture}", f"weights={block}", *cut)
    accounts = ledger(done)["accounts"]
    assert 0.9 * 6e9 < sum(account["flops"] for account in accounts.values()) <= 6e9
    assert history(done)[-1]["validation"]


def test_a_flops_budget_too_small_for_the_anchors_is_refused(tmp_path):
    with pytest.raises(ApportionError, match="FLOPs with the validation before and after it"):
        run(tmp_path / "run", "budget=3e8 FLOPs", "weights={type: adapt, anchors: 4000}")
    assert not (tmp_path / "run").exists()
    run(tmp_path / "small", "budget=3e8 FLOPs", "weights={type: adapt, anchors: 4}")


# DoReMi's needs a finished run of the same data beside it: tests/weights/test_doremi.py.
@pytest.mark.parametrize("name", sorted(set(WEIGHTS) - {"doremi"}))
@pytest.mark.parametrize(
    "settings",
    [
        ("training.gradient_checkpointing=true", "lora={r: 4, alpha: 8}", "training.bf16=true"),
        ("packing=true", "training.gradient_accumulation_steps=2", "mixture={type: adapt, refresh: 3}"),
        ("model.config.model_type=gemma3_text", "model.config.head_dim=16", "mixture=progress"),
    ],
)
def test_the_ecosystems_settings_work_with_weights(tmp_path, name, settings):
    records = history(run(tmp_path / "run", f"weights={name}", *settings))
    assert records[-1]["macro"] < records[0]["macro"]


@pytest.mark.parametrize("block", WEIGHED)
def test_packing_changes_nothing_but_rounding(once, block):
    common = (f"weights={block}", "mixture=uniform")
    padded, packed = once(*common), once(*common, "packing=true")
    ours, theirs = load(weights(packed)), load(weights(padded))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=2e-6)


def test_resolved_recipes_write_the_defaults_and_the_command_line_sets_them():
    recipe = parse_recipe(overridden(TINY, ["weights.type=adapt", "weights.tau=0.5"]))
    block = {"type": "adapt", "tau": 0.5, "normalise": False, "anchors": 400, "refresh": 50, "positions": "all"}
    assert recipe.resolved()["weights"] == {**block, "centred": False}
    assert parse_recipe(recipe.resolved()).resolved() == recipe.resolved()
    assert parse_recipe(TINY).resolved()["weights"] == {"type": "uniform"}
    assert parse_recipe(overridden(TINY, ["weights=bm25", "weights.type=linupper"])).weights == {"type": "linupper"}


def test_the_plan_prices_anchors_and_second_looks():
    from apportion.plans.plan import plan_recipe

    cut = ["training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2"]
    plain, adapt, upper = (
        plan_recipe(parse_recipe(overridden(TINY, [*cut, *more])))
        for more in ([], ["weights={type: adapt, refresh: 5}"], ["weights=linupper"])
    )
    assert adapt.accounts["train"] == upper.accounts["train"] == plain.accounts["train"]
    data = load_data(parse_recipe(TINY))
    anchors = sum(int(split.processed[i]) for half in data.held_out.steer for _, split, i in half[:400])
    more = adapt.accounts["validation"]["processed"] - plain.accounts["validation"]["processed"]
    assert 0 < more <= -(-plain.steps // 5) * anchors
    assert upper.accounts["meta"]["flops"] == pytest.approx(plain.accounts["train"]["flops"] / 3, rel=0.05)
    assert plain.accounts["meta"]["flops"] == 0
