"""What training is steered toward: one objective a file, found by its name in a recipe or as an attribute here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.objectives._objective import BoundObjective, Objective
    from apportion.objectives.mean import Mean
    from apportion.objectives.reducible import Reducible
    from apportion.objectives.worst import Worst

OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    "apportion.objectives._objective:Objective",
    {
        "mean": "apportion.objectives.mean:Mean",
        "worst": "apportion.objectives.worst:Worst",
        "reducible": "apportion.objectives.reducible:Reducible",
    },
)

__all__ = ["OBJECTIVES", "BoundObjective", "Mean", "Objective", "Reducible", "Worst"]


def __getattr__(name: str) -> object:
    # Objectives work on tensors; naming the family must not load torch.
    if name not in __all__:
        raise AttributeError(f"module 'apportion.objectives' has no attribute '{name}'")
    if name.lower() in OBJECTIVES:
        return OBJECTIVES.get(name.lower())
    from apportion.objectives import _objective

    return getattr(_objective, name)


def __dir__() -> list[str]:
    return sorted(__all__)
