"""Draws, batches, the methods' runners, the trainers' hooks, and the parts that a checkpoint holds."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion.training.budgeted import Budgeted
    from apportion.training.part import Done, Part, Parts
    from apportion.training.recorder import Recorder
    from apportion.training.trainer import BudgetTrainer

_HOME = {
    "BudgetTrainer": "trainer",
    "Budgeted": "budgeted",
    "Done": "part",
    "Part": "part",
    "Parts": "part",
    "Recorder": "recorder",
}

__all__ = ["BudgetTrainer", "Budgeted", "Done", "Part", "Parts", "Recorder"]


def __getattr__(name: str) -> object:
    # Loaded on first use: naming the package must not load torch.
    if name not in _HOME:
        raise AttributeError(f"module 'apportion.training' has no attribute '{name}'")
    return getattr(importlib.import_module(f"apportion.training.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
