"""A plan says what a run spends, by account; where validations are left to it, they cost a tenth."""

import yaml

from apportion.plans.advice import MOST_SHARE
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.plans.spending import CADENCES
from tests.training.runs import TINY

SMALL = overridden(TINY, ["budget=2000", "tasks.scale=0.1"])


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
