"""Which examples are kept: one method a file, found by its name in a recipe or as an attribute here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.selections._selection import Limited, Selection, Targeted
    from apportion.selections.all import All
    from apportion.selections.bm25 import Bm25
    from apportion.selections.embedding import Embedding
    from apportion.selections.file import File
    from apportion.selections.less import Less
    from apportion.selections.perplexity import Perplexity
    from apportion.selections.random import Random

SELECTIONS: Registry[Selection] = Registry(
    "selection",
    "apportion.selections._selection:Selection",
    {
        "all": "apportion.selections.all:All",
        "random": "apportion.selections.random:Random",
        "bm25": "apportion.selections.bm25:Bm25",
        "embedding": "apportion.selections.embedding:Embedding",
        "perplexity": "apportion.selections.perplexity:Perplexity",
        "less": "apportion.selections.less:Less",
        "file": "apportion.selections.file:File",
    },
)

__all__ = [
    "SELECTIONS",
    "All",
    "Bm25",
    "Embedding",
    "File",
    "Less",
    "Limited",
    "Perplexity",
    "Random",
    "Selection",
    "Targeted",
]

__getattr__, __dir__ = lazily(__name__, __all__, "_selection", SELECTIONS)
