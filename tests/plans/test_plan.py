"""A plan says what a run spends, by account; where validations are left to it, they cost a tenth."""

import pytest
import yaml

from apportion.mixtures import MIXTURES
from apportion.plans.advice import MOST_SHARE
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.plans.spending import CADENCES
from apportion.weights import WEIGHTS
from tests.training.runs import TINY

SMALL = overridden(TINY, ["budget=2000", "tasks.scale=0.1"])
# Settings under which a run of this length does what the method does.
SETTINGS = {
    "fixed": ["tasks.names=[copy, reverse]", "mixture={type: fixed, shares: {copy: 0.25, reverse: 0.75}}"],
    "adapt": ["mixture={type: adapt, refresh: 20}"],
}
MORE = {
    "adapt, every step read": ["mixture={type: adapt, refresh: 25, reads: null}"],
    "forward": ["mixture={type: adapt, estimator: forward, refresh: 8, examples_per_task: 1}"],
    "unrolled": ["mixture={type: adapt, estimator: unrolled, refresh: 20, examples_per_task: 2}"],
    "tokens": ["mixture={type: uniform, unit: tokens}"],
    "second look": ["weights=linupper", "training.gradient_accumulation_steps=2"],
    "packing": ["packing=true"],
    "FLOPs": ["budget=4e9 FLOPs", "mixture={type: adapt, refresh: 20}"],
    "FLOPs, second look": ["budget=4e9 FLOPs", "weights=linupper", "training.gradient_accumulation_steps=2"],
    "few steps": ["budget=300", "training.per_device_train_batch_size=32", "validation.every=5%"],
}
RUNS = {
    **{f"mixture {name}": SETTINGS.get(name, [f"mixture={name}"]) for name in MIXTURES},
    **{f"weights {name}": [f"weights={name}"] for name in WEIGHTS},
    **MORE,
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_planned_is_spent_within_a_tenth(tmp_path, settings):
    recipe = parse_recipe(overridden(SMALL, settings))
    plan = plan_recipe(recipe)
    spent = run_recipe(recipe, tmp_path / "run").summary["spent"]
    for account, planned in plan.accounts.items():
        for column in ("processed", "flops"):
            assert planned[column] == pytest.approx(spent[account][column], rel=0.1), (account, column)


class TestCadence:
    UNSET = overridden(SMALL, ["validation={examples_per_task: 4}"])

    def settled(self, *settings):
        return plan_recipe(parse_recipe(overridden(self.UNSET, settings)))

    def share(self, plan):
        return plan.accounts["validation"]["flops"] / sum(account["flops"] for account in plan.accounts.values())

    def test_validations_left_to_the_price_cost_at_most_a_tenth(self):
        chosen = {budget: self.settled(f"budget={budget}") for budget in (200, 3000, 6000, 100000)}
        cadences = [plan.validation_every for plan in chosen.values()]
        assert cadences == sorted(cadences, reverse=True) and set(cadences) <= set(CADENCES)
        assert cadences[0] == 1.0 and cadences[-1] == 0.05 and len(set(cadences)) > 2
        for plan in list(chosen.values())[1:]:
            assert self.share(plan) <= MOST_SHARE
        rarer = chosen[6000].validation_every
        oftener = self.settled("budget=6000", f"validation.every={CADENCES[CADENCES.index(rarer) - 1]}")
        assert self.share(oftener) > MOST_SHARE

    def test_arms_and_seeds_are_measured_as_often(self):
        arms = ([], ["mixture=proportional"], ["mixture=adapt"], ["weights=adapt"], ["seed=3"])
        assert len({self.settled("budget=3000", *arm).validation_every for arm in arms}) == 1

    def test_a_cadence_that_is_set_stays(self):
        assert self.settled("validation.every=5%", "budget=200").validation_every == 0.05

    def test_the_runs_recipe_has_it_written_and_is_resumed(self, tmp_path):
        recipe = parse_recipe(overridden(self.UNSET, ["budget=3000"]))
        every = plan_recipe(recipe).validation_every
        out = run_recipe(recipe, tmp_path / "run").path
        assert yaml.safe_load((out / "recipe.yaml").read_text())["validation"]["every"] == every != 0.05
        (out / "summary.json").unlink()
        assert run_recipe(recipe, out).summary["spent"]["train"]["supervised"] <= 3000
