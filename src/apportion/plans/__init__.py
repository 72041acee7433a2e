"""From a recipe to stages, a priced plan, a run, or a comparison of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion.plans.compare import Comparison
    from apportion.plans.init import write_recipe
    from apportion.plans.looking import Found, look
    from apportion.plans.plan import Plan, plan_recipe
    from apportion.plans.recipe import Recipe, parse_recipe
    from apportion.plans.run import Run, run_recipe
    from apportion.plans.stages import Stage

_HOME = {
    "Comparison": "compare",
    "Found": "looking",
    "Plan": "plan",
    "Recipe": "recipe",
    "Run": "run",
    "Stage": "stages",
    "look": "looking",
    "parse_recipe": "recipe",
    "plan_recipe": "plan",
    "run_recipe": "run",
    "write_recipe": "init",
}

__all__ = [
    "Comparison",
    "Found",
    "Plan",
    "Recipe",
    "Run",
    "Stage",
    "look",
    "parse_recipe",
    "plan_recipe",
    "run_recipe",
    "write_recipe",
]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
