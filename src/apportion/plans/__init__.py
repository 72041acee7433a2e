"""From a recipe to stages, a priced plan, a run, or a comparison of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion.plans.plan import Plan, plan_recipe
    from apportion.plans.recipe import Recipe, parse_recipe
    from apportion.plans.run import Run, run_recipe
    from apportion.plans.stages import Stage

_HOME = {
    "Plan": "plan",
    "Recipe": "recipe",
    "Run": "run",
    "Stage": "stages",
    "parse_recipe": "recipe",
    "plan_recipe": "plan",
    "run_recipe": "run",
}

__all__ = ["Plan", "Recipe", "Run", "Stage", "parse_recipe", "plan_recipe", "run_recipe"]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
