"""The recipe's ``evaluate`` block: which benchmarks, on how much of them, and when."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from apportion._config import Config
from apportion.budget.cadence import read_share


class EvaluateSpec(Config):
    """Benchmarks of a run's model.

    ``tasks``: names of shipped tasks, suites or the harness's own, or YAML files of its format. ``limit``: examples of each
    task, all where None. ``shots``: examples shown before each question; None leaves it to the task. ``chat``: whether
    questions go through the tokenizer's chat template. ``every``: the share of the budget between evaluations while
    training goes on; None for the end alone. ``run_code``: whether code that the model writes may be run, apart from this
    process and without a network.
    """

    tasks: list[str] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    shots: int | None = Field(default=None, ge=0)
    chat: bool = False
    every: float | None = None
    run_code: bool = False

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("every", mode="before")
    @classmethod
    def _share(cls, value: object) -> float | None:
        return None if value is None else read_share(value)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes another measurement of a task, were it different."""
        return {"limit": self.limit, "shots": self.shots, "chat": self.chat}
