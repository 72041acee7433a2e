"""Apportion learns, while it fine-tunes a language model, where each token of a fixed budget should go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion import caches, mixtures, models, objectives, selections, signals, weights
    from apportion._errors import ApportionError
    from apportion.budget import Budget, Ledger
    from apportion.decoding.attach import kv_budget
    from apportion.plans.api import compare, evaluate, export, generate, reinforce, select, train
    from apportion.reports import write_report
    from apportion.runs import read_run
    from apportion.tasks import TaskCollection, load_tasks

__version__ = "0.1.0"

_HOME = {
    "ApportionError": "_errors",
    "Budget": "budget",
    "Ledger": "budget",
    "TaskCollection": "tasks",
    "caches": "",
    "compare": "plans.api",
    "evaluate": "plans.api",
    "export": "plans.api",
    "generate": "plans.api",
    "kv_budget": "decoding.attach",
    "load_tasks": "tasks",
    "mixtures": "",
    "models": "",
    "objectives": "",
    "read_run": "runs",
    "reinforce": "plans.api",
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
    "caches",
    "compare",
    "evaluate",
    "export",
    "generate",
    "kv_budget",
    "load_tasks",
    "mixtures",
    "models",
    "objectives",
    "read_run",
    "reinforce",
    "select",
    "selections",
    "signals",
    "train",
    "weights",
    "write_report",
]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
