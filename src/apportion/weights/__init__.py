"""How much each example counts: one method a file, found by its name in a recipe or as an attribute here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.weights._weighting import Anchored, Weighting
    from apportion.weights.adapt import Adapt
    from apportion.weights.bm25 import Bm25
    from apportion.weights.doremi import Doremi
    from apportion.weights.duplicates import Duplicates
    from apportion.weights.linupper import LinUpper
    from apportion.weights.uniform import Uniform

WEIGHTS: Registry[Weighting] = Registry(
    "weights",
    "apportion.weights._weighting:Weighting",
    {
        "uniform": "apportion.weights.uniform:Uniform",
        "adapt": "apportion.weights.adapt:Adapt",
        "bm25": "apportion.weights.bm25:Bm25",
        "doremi": "apportion.weights.doremi:Doremi",
        "duplicates": "apportion.weights.duplicates:Duplicates",
        "linupper": "apportion.weights.linupper:LinUpper",
    },
)

__all__ = ["WEIGHTS", "Adapt", "Anchored", "Bm25", "Doremi", "Duplicates", "LinUpper", "Uniform", "Weighting"]

__getattr__, __dir__ = lazily(__name__, __all__, "_weighting", WEIGHTS)
