"""From a recipe to stages, a priced plan, a run, or a comparison of runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    # Loaded on first use: naming the package must not load torch.
    if name not in _HOME:
        raise AttributeError(f"module 'apportion.plans' has no attribute '{name}'")
    return getattr(importlib.import_module(f"apportion.plans.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
