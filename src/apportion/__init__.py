"""Apportion learns, while it fine-tunes a language model, where each token of a fixed budget should go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion import mixtures, models, objectives, selections, signals, weights
    from apportion._errors import ApportionError
    from apportion.budget import Budget, Ledger
    from apportion.plans.api import compare, evaluate, select, train
    from apportion.reports import write_report
    from apportion.runs import read_run
    from apportion.tasks import TaskCollection, load_tasks

__version__ = "0.1.0"

_HOME = {
    "ApportionError": "_errors",
    "Budget": "budget",
    "Ledger": "budget",
    "TaskCollection": "tasks",
    "compare": "plans.api",
    "evaluate": "plans.api",
    "load_tasks": "tasks",
    "mixtures": "",
    "models": "",
    "objectives": "",
    "read_run": "runs",
    "select": "plans.api",
    "selections": "",
    "signals": "",
    "train": "plans.api",
    "weights": "",
    "write_report": "reports",
}

__all__ = [
    "ApportionError",
    "Budget",
    "Ledger",
    "TaskCollection",
    "compare",
    "evaluate",
    "load_tasks",
    "mixtures",
    "models",
    "objectives",
    "read_run",
    "select",
    "selections",
    "signals",
    "train",
    "weights",
    "write_report",
]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
