"""Rows counted out as passes over files, for trainers without a number of draws."""

from __future__ import annotations

from apportion.exports._exporter import TaskFile


def slices(task: TaskFile) -> list[str]:
    """Return the task's passes as ``datasets`` writes splits: ``train`` for a whole one, ``train[:37]`` for 37 rows."""
    whole, rest = task.passes
    return ["train"] * whole + ([f"train[:{rest}]"] if rest else [])
