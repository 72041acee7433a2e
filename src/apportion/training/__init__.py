"""Draws, batches, the methods' runners, the trainers' hooks, and the parts that a checkpoint holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

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

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
