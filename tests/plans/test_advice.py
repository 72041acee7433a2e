"""What a plan advises follows from what it shows, and following it mends what was seen."""

import pytest
import torch

from apportion.mixtures import MIXTURES
from apportion.plans.advice import (
    MOST_EPOCHS,
    MOST_SHARE,
    Validations,
    advise_epochs,
    advise_memory,
    advise_method,
    advise_validation,
    count_of,
)
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.spending import CADENCES
from tests.training.runs import TINY

LONG = ["budget=3000", "validation={every: 5%, examples_per_task: 16}"]


def planned(*settings):
    return plan_recipe(parse_recipe(overridden(TINY, [*LONG, *settings])))


def share(plan, account):
    return plan.accounts[account]["flops"] / sum(spent["flops"] for spent in plan.accounts.values())


def settings_in(advice):
    return [word.strip(",") for word in advice.set.split() if "=" in word]


def test_validations_that_cost_too_much_are_advised_away():
    plan = planned()
    assert share(plan, "validation") > MOST_SHARE
    (advice,) = plan.advice
    assert advice.seen == f"{share(plan, 'validation'):.0%} of the FLOPs go to 21 validations of the report"
    mended = planned(*settings_in(advice))
    assert share(mended, "validation") <= 1.05 * MOST_SHARE and not mended.advice


def test_a_rarer_cadence_is_enough_where_it_is():
    once, steps = 1.0, 1000
    validations = Validations(0.05, 64, lambda examples: once * examples / 64)
    for others, to_set in [
        (190.0, None),
        (150.0, "validation.every=10%"),
        (60.0, "validation.every=20%"),
        (30.0, "validation.every=50%"),
        (20.0, "validation.every=50% and validation.examples_per_task=32"),
        (1e-9, "validation.every=50% and validation.examples_per_task=1"),
    ]:
        advised = list(advise_validation(validations, steps, others + 21 * once, CADENCES))
        assert [advice.set for advice in advised] == ([] if to_set is None else [f"{to_set}, or a larger budget"])


def test_where_nothing_is_left_to_measure_less():
    rarest = Validations(1.0, 1, lambda examples: 1.0)
    assert [advice.set for advice in advise_validation(rarest, 9, 3.0, CADENCES)] == ["a larger budget"]


def test_a_plan_that_is_well_set_gets_no_advice():
    assert not planned("validation.examples_per_task=1", "budget=20000").advice


def test_what_a_method_measures_names_its_own_keys():
    plan = planned("validation.examples_per_task=1", "mixture={type: adapt, refresh: 3, examples_per_task: 8}")
    (advice,) = plan.advice
    assert f"{share(plan, 'meta'):.0%} of the FLOPs go to what the mixture 'adapt' measures" in advice.seen
    assert "mixture.refresh (now 3)" in advice.set and "mixture.examples_per_task (now 8)" in advice.set
    plan = planned("validation.examples_per_task=1", "weights={type: adapt, refresh: 2}")
    (advice,) = plan.advice
    assert "the weights 'adapt'" in advice.seen and "weights.refresh (now 2)" in advice.set


def test_every_methods_advice_is_of_keys_that_it_has():
    for name in MIXTURES:
        settings = {"shares": {"a": 1.0}} if name == "fixed" else {}
        method = MIXTURES.build({"type": name, **settings}, "mixture")
        advised = list(advise_method("mixture", name, method, "meta", 0.2, 1.0))
        # The bandit goes by training's own losses, and the searches' trials are runs: there is nothing to measure less of.
        assert len(advised) == (not method.plain and bool(method.needs()) and name != "bandit")
        for advice in advised:
            named = [word.removeprefix("mixture.") for word in advice.set.split() if word.startswith("mixture.")]
            assert named and set(named) <= set(type(method).model_fields)
        assert not list(advise_method("mixture", name, method, "meta", 0.1, 1.0))


def test_tasks_seen_too_often_are_named():
    plan = planned("budget=60000", "validation.examples_per_task=1", "validation.every=50%")
    often = [name for name, n in plan.epochs.items() if n > MOST_EPOCHS]
    (advice,) = plan.advice
    assert often and f"{len(often)} of 20 tasks would be seen more than 10 times" in advice.seen
    assert "mixture.max_epochs=10" in advice.set
    assert not list(advise_epochs(plan.epochs, 12.0)) and not list(advise_epochs({"a": 10.0}, None))


def test_memory_beyond_the_machine():
    (advice,) = advise_memory(2**60, torch.device("cpu"))
    assert "GiB" in advice.seen and "lora" in advice.set
    assert not list(advise_memory(2**20, torch.device("cpu")))


@pytest.mark.parametrize(("every", "steps", "count"), [(0.5, 9, 3), (0.3, 9, 5), (1.0, 9, 2), (0.05, 3, 4)])
def test_how_many_validations_there_are(every, steps, count):
    assert count_of(every, steps) == count
