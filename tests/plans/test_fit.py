"""What cannot be steered is refused by a plan and before a run, with nothing written."""

import pytest

from apportion._errors import ApportionError
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import prepare
from tests.training.runs import TINY, run

ADAPT = "mixture={type: adapt, refresh: 3}"
GPT2 = "model.config={model_type: gpt2, n_embd: 32, n_layer: 2, n_head: 2, n_positions: 128}"
FALCON = "model.config={model_type: falcon, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2}"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((ADAPT, "training.optim=adafactor"), "not of 'adafactor'"),
        (("mixture={type: adapt, estimator: forward}", "training.optim=rmsprop"), "not of 'rmsprop'"),
        ((ADAPT, FALCON), "'falcon' writes over"),
    ],
)
def test_what_cannot_be_steered_is_refused_before_anything_is_spent(tmp_path, settings, said):
    recipe = parse_recipe(overridden(TINY, settings))
    for ask in (plan_recipe, lambda recipe: prepare(recipe, tmp_path / "run")):
        with pytest.raises(ApportionError, match=said):
            ask(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mixture", ["uniform", "loss"])
@pytest.mark.parametrize(("fits", "not_quite"), [("20k", "150%"), ("60k processed", "10M processed"), ("1e9", "1e14")])
def test_a_budget_that_max_epochs_does_not_allow_is_refused_in_whatever_unit(mixture, fits, not_quite):
    unit = " FLOPs" if "e" in fits and "p" not in fits else ""
    capped = f"mixture={{type: {mixture}, max_epochs: 1}}"
    plan_recipe(parse_recipe(overridden(TINY, [capped, f"budget={fits}{unit}"])))
    plan_recipe(parse_recipe(overridden(TINY, [f"mixture={mixture}", f"budget={not_quite}{unit}"])))
    with pytest.raises(ApportionError, match=r"is more than 'mixture.max_epochs' = 1 allows \("):
        plan_recipe(parse_recipe(overridden(TINY, [capped, f"budget={not_quite}{unit}"])))


@pytest.mark.parametrize(
    "settings",
    [
        ("mixture={type: adapt, refresh: 3, precondition: false}", "training.optim=adafactor"),
        ("mixture=uniform", "training.optim=adafactor"),
        ("mixture={type: adapt, refresh: 8, estimator: forward, examples_per_task: 1}", FALCON),
        (ADAPT, GPT2, "model.tokenizer={train: character}"),
    ],
)
def test_what_stands_in_the_refusals_as_the_way_out_works(tmp_path, settings):
    done = run(tmp_path / "run", *settings)
    assert done.summary["n_eff"] < 20 - 1e-6 or settings[0] == "mixture=uniform"


OPT = "{model_type: opt, hidden_size: 32, ffn_dim: 64, num_hidden_layers: 1, num_attention_heads: 2}"
BLOOM = "{model_type: bloom, hidden_size: 32, n_layer: 1, n_head: 2}"


@pytest.mark.parametrize("config", [OPT, BLOOM], ids=["opt", "bloom"])
def test_a_model_that_cannot_tell_packed_examples_apart_is_not_given_any(tmp_path, config):
    settings = [f"model.config={config}", "lora=null"]
    prepare(parse_recipe(overridden(TINY, settings)), tmp_path / "run")
    for lora in ("lora=null", "lora={r: 2}"):
        with pytest.raises(ApportionError, match="does not keep packed examples apart"):
            prepare(parse_recipe(overridden(TINY, [*settings, lora, "packing=true"])), tmp_path / "run")


@pytest.mark.parametrize("lora", ["lora=null", "lora={r: 2}"])
def test_a_model_that_can_is(tmp_path, lora):
    prepare(parse_recipe(overridden(TINY, ["packing=true", lora])), tmp_path / "run")
