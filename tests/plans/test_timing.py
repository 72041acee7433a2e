"""Seconds come from a few real steps that leave nothing behind, or from bounds where a model is too large to try."""

import pytest
import torch

from apportion.plans import timing
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.timing import Pace, measured_pace, seconds_of, worth_timing
from tests.training.runs import TINY

MODELS = {
    "full": [],
    "lora": ["lora={r: 2}"],
    "accumulated": ["training.gradient_accumulation_steps=2", "training.per_device_train_batch_size=4"],
    "weighed": ["weights=adapt"],
    "packed": ["packing=true"],
    "gpt2": ["model.config={model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2, n_positions: 128}"],
    "bf16": ["training.bf16=true"],
}


def recipe(*settings):
    return parse_recipe(overridden(TINY, settings))


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_steps_are_timed_and_nothing_is_written(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    pace = measured_pace(recipe(*settings))
    assert timing.FEWEST_STEPS - 1 <= pace.steps < timing.MOST_STEPS
    assert min(pace.train, pace.measure, pace.checkpoint) > 0 and pace.start >= 0
    assert not list(tmp_path.iterdir())


def test_arms_and_seeds_share_what_was_timed():
    assert measured_pace(recipe()) is measured_pace(recipe("mixture=adapt", "seed=4", "budget=700"))
    assert measured_pace(recipe()) is not measured_pace(recipe("training.per_device_train_batch_size=2"))


def test_a_plan_that_is_timed_says_so_and_is_else_the_same():
    timed, bounded = (plan_recipe(recipe(), timed=timed) for timed in (True, False))
    assert timed.timed_steps > 0 == bounded.timed_steps
    assert timed.accounts == bounded.accounts
    for plan in (timed, bounded):
        assert 0 < plan.seconds_range[0] < plan.seconds < plan.seconds_range[1]


def test_a_model_from_the_hub_is_timed_without_its_weights(tmp_path):
    from apportion.models.loading import model_config
    from apportion.plans.build import load_data

    small = recipe()
    data = load_data(small)
    data.tokenizer.save_pretrained(tmp_path)
    model_config(small.model, data.tokenizer).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    assert measured_pace(recipe(f"model={{name: '{tmp_path}'}}")).train > 0


def test_seconds_are_those_of_what_is_spent():
    accounts = {"train": {"flops": 6e9}, "validation": {"flops": 4e9}, "meta": {"flops": 1e9}}
    pace = Pace(steps=5, start=2.0, train=1e-9, measure=5e-10, checkpoint=0.25)
    timed = seconds_of(accounts, 4, pace, 1e9)
    assert timed.middle == pytest.approx(2 + 7 + 2 + 2 * 0.25)
    assert timed.low * timing.SPREAD == pytest.approx(timed.middle) == pytest.approx(timed.high / timing.SPREAD)
    bounds = seconds_of(accounts, 4, None, 1e9)
    least, usual, most = timing.UTILISATION
    assert (bounds.low, bounds.middle, bounds.high) == pytest.approx((11 / most, 11 / usual, 11 / least))


def test_what_takes_minutes_to_try_is_not_tried():
    assert worth_timing(10**6, 1e9, 1e10)
    assert not worth_timing(10**9, 1e9, 1e10)
    assert not worth_timing(10**6, 1e12, 1e10)
    large = recipe("model.config.hidden_size=4096", "model.config.num_hidden_layers=4")
    assert plan_recipe(large, timed=True).timed_steps == 0


def test_weights_made_up_are_finite(monkeypatch):
    seen = []
    monkeypatch.setattr(timing, "_measured", lambda model, *_: seen.append(model) or 1.0)
    timing._timed.cache_clear()
    measured_pace(recipe("model.config.tie_word_embeddings=true"))
    (model,) = seen
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    timing._timed.cache_clear()
