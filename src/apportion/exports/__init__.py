"""The mixture handed on: one trainer a file, found by its name after ``--to``, and the card of a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.exports._exporter import Exporter, Handed, TaskFile, Written
    from apportion.exports.axolotl import Axolotl
    from apportion.exports.datasets import Datasets
    from apportion.exports.llama_factory import LlamaFactory
    from apportion.exports.open_instruct import OpenInstruct
    from apportion.exports.shares import TaskShare
    from apportion.exports.trl import Trl

EXPORTERS: Registry[Exporter] = Registry(
    "trainer",
    "apportion.exports._exporter:Exporter",
    {
        "trl": "apportion.exports.trl:Trl",
        "axolotl": "apportion.exports.axolotl:Axolotl",
        "llama-factory": "apportion.exports.llama_factory:LlamaFactory",
        "open-instruct": "apportion.exports.open_instruct:OpenInstruct",
        "datasets": "apportion.exports.datasets:Datasets",
    },
)

_HOME = {
    "Axolotl": "axolotl",
    "Datasets": "datasets",
    "Exporter": "_exporter",
    "Handed": "_exporter",
    "LlamaFactory": "llama_factory",
    "OpenInstruct": "open_instruct",
    "TaskFile": "_exporter",
    "TaskShare": "shares",
    "Trl": "trl",
    "Written": "_exporter",
}

__all__ = [
    "EXPORTERS",
    "Axolotl",
    "Datasets",
    "Exporter",
    "Handed",
    "LlamaFactory",
    "OpenInstruct",
    "TaskFile",
    "TaskShare",
    "Trl",
    "Written",
]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
