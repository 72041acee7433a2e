"""What is compared: arms as blocks over the recipe's ``rl``, and the tasks with their models and budgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ARMS: dict[str, dict[str, Any] | None] = {
    "sft": None,
    "grpo": {"type": "grpo"},
    "grpo-length": {
        "type": "grpo",
        "rewards": {"accuracy": 1.0, "format": 0.2, "length": {"weight": 0.5, "free": 0.5}},
    },
    "brpo-base": {"prior": "base"},
    "brpo-linear": {"prior": "linear"},
    "brpo-uniform": {"prior": "uniform"},
    "brpo-uniform-own": {"prior": "uniform", "baseline": "own"},
    "brpo-uniform-group": {"prior": "uniform", "baseline": "group"},
    "brpo-uniform-none": {"prior": "uniform", "baseline": "none"},
}


@dataclass(frozen=True)
class Task:
    """Problems, the model that is trained on them by supervision, and the budgets of thinking.

    ``budgets`` are trained toward, all arms are judged at those ``measured``, and each may write ``generated`` tokens.
    """

    name: str
    sft: str
    recipe: str
    budgets: tuple[int, ...]
    measured: tuple[int, ...]
    generated: int
    tasks: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


TASKS = {
    task.name: task
    for task in (
        Task(
            "arithmetic",
            "sft",
            "recipes/thinking/sft.yaml",
            (8, 16, 32, 56),
            (1, 4, 8, 12, 16, 24, 32, 40, 48, 56),
            200_000,
        ),
    )
}
