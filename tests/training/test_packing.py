"""A packed run is the plain run with less padding: same draws, steps, losses and charges."""

from __future__ import annotations

import json

import pytest

from apportion._errors import ApportionError
from apportion.plans.build import load_data
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import prepare
from tests.training.runs import TINY, history, ledger, run

ADAPT = ("mixture.type=adapt", "mixture.refresh=2", "mixture.reads=2", "mixture.examples_per_task=1")


@pytest.mark.parametrize("settings", [(), ADAPT, ("lora={r: 4}", *ADAPT)], ids=["uniform", "adapt", "lora"])
def test_packing_changes_the_padding_and_nothing_else(tmp_path, settings):
    plain = run(tmp_path / "plain", *settings)
    packed = run(tmp_path / "packed", "packing=true", *settings)
    losses = [[record["loss"] for record in history(done) if "loss" in record] for done in (plain, packed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and len(losses[0]) > 5
    assert packed.summary["final"]["validation"] == pytest.approx(plain.summary["final"]["validation"], rel=1e-4)
    mixtures = [json.loads((done.path / "mixture.json").read_text()) for done in (plain, packed)]
    assert mixtures[1]["tasks"] == mixtures[0]["tasks"]
    assert mixtures[1]["final"] == pytest.approx(mixtures[0]["final"], abs=1e-5)
    before, after = (ledger(done)["accounts"] for done in (plain, packed))
    assert after["train"].pop("padded") < before["train"].pop("padded")
    assert after == {account: pytest.approx(spent) for account, spent in before.items()}


def test_rows_are_as_long_as_an_example_may_be(tmp_path):
    recipe = parse_recipe(overridden(TINY, ["packing=true", "training.gradient_accumulation_steps=3"]))
    training = prepare(recipe, tmp_path / "run").training
    data, parts = training.data, training.setup
    p = parts.mixture.p.numpy()
    examples = 0
    while (step := parts.stream.next_step(p)) is not None:
        batches = [batch for batch in step.batches if batch is not None]
        assert len(step.batches) == 3 and step.batches[-1] is not None
        assert sum(len(batch) for batch in batches) == step.examples
        assert all(batch.packed and batch.input_ids.shape[1] <= recipe.tasks.max_length for batch in batches)
        examples += step.examples
    assert parts.ledger.spent("train").supervised == int(parts.stream.sampler.drawn_supervised.sum())
    assert examples == int(parts.stream.sampler.drawn_examples.sum()) and load_data(recipe) is data


def test_an_attention_that_cannot_keep_rows_apart_is_refused(tmp_path):
    values = overridden(TINY, ["packing=true", "model.attention=flash_attention_2"])
    with pytest.raises(ApportionError, match=r"'packing' is True: needs 'model\.attention' sdpa or eager"):
        prepare(parse_recipe(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()
