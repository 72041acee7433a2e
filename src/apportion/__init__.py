"""Apportion learns, while it fine-tunes a language model, where each token of a fixed budget should go."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion import mixtures, models, objectives, signals, weights
    from apportion._errors import ApportionError
    from apportion.budget import Budget, Ledger
    from apportion.plans.api import compare, train
    from apportion.reports import write_report
    from apportion.runs import read_run
    from apportion.tasks import TaskCollection, load_tasks

__version__ = "0.1.0"

_HOME = {
    "ApportionError": "apportion._errors",
    "Budget": "apportion.budget",
    "Ledger": "apportion.budget",
    "TaskCollection": "apportion.tasks",
    "compare": "apportion.plans.api",
    "load_tasks": "apportion.tasks",
    "mixtures": "apportion",
    "models": "apportion",
    "objectives": "apportion",
    "read_run": "apportion.runs",
    "signals": "apportion",
    "train": "apportion.plans.api",
    "weights": "apportion",
    "write_report": "apportion.reports",
}

__all__ = [
    "ApportionError",
    "Budget",
    "Ledger",
    "TaskCollection",
    "compare",
    "load_tasks",
    "mixtures",
    "models",
    "objectives",
    "read_run",
    "signals",
    "train",
    "weights",
    "write_report",
]


def __getattr__(name: str) -> object:
    # Loaded on first use: `import apportion` and `apportion --help` need neither torch nor transformers.
    if name not in _HOME:
        raise AttributeError(f"module 'apportion' has no attribute '{name}'")
    if _HOME[name] == "apportion":
        return importlib.import_module(f"apportion.{name}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
