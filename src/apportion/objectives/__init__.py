"""What training is steered toward: one objective a file, found by its name in a recipe or as an attribute here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
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

__getattr__, __dir__ = lazily(__name__, __all__, "_objective", OBJECTIVES)
