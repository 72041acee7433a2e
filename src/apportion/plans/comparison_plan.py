"""What a whole comparison would cost: every arm priced, times its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apportion._errors import ApportionError
from apportion.plans.arms import arm_recipe
from apportion.plans.plan import Plan, plan_recipe


@dataclass(frozen=True)
class ComparisonPlan:
    """The plan of each arm, and how many seeds each is run with; seeds cost alike, to within what they draw."""

    arms: Mapping[str, Plan]
    seeds: int

    @property
    def total(self) -> dict[str, Any]:
        """Runs, steps, FLOPs by account and seconds of all of them."""
        plans, n = list(self.arms.values()), self.seeds
        accounts = {name: n * sum(_flops(plan, name) for plan in plans) for plan in plans for name in plan.accounts}
        low, high = (n * sum(plan.seconds_range[side] for plan in plans) for side in (0, 1))
        return {
            "runs": n * len(plans),
            "steps": n * sum(plan.steps for plan in plans),
            "flops": sum(accounts.values()),
            "accounts": accounts,
            "seconds": n * sum(plan.seconds for plan in plans),
            "seconds_range": (low, high),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        arms = {arm: plan.as_dict() for arm, plan in self.arms.items()}
        return {"arms": arms, "seeds": self.seeds, "total": self.total}


def plan_comparison(
    values: Mapping[str, Any], methods: Sequence[str], seeds: Sequence[int], *, timed: bool = False
) -> ComparisonPlan:
    """Price every arm of a comparison, with the checks that `compare_recipe` makes before it trains the first.

    Args:
        values: The compare recipe, as plain values.
        methods: Arms of the recipe, or mixtures where it has no arm of that name.
        seeds: One run each.
        timed: As for `plan_recipe`; arms that differ in mixture, weights apart, share what was timed.

    Raises:
        ApportionError: No arm or seed, or anything wrong with one.
    """
    if not methods or not seeds:
        raise ApportionError("A comparison needs at least one method and one seed.")
    numbers = list(dict.fromkeys(seeds))
    # Every recipe is read, and the first seed of each arm is priced.
    recipes = {arm: [arm_recipe(values, arm, seed) for seed in numbers] for arm in methods}
    return ComparisonPlan({arm: plan_recipe(of[0], timed=timed) for arm, of in recipes.items()}, len(numbers))


def _flops(plan: Plan, account: str) -> float:
    return plan.accounts[account]["flops"] if account in plan.accounts else 0.0
