"""Tasks: named sets of examples, their splits, and their tokens counted by kind.

Reading goes ``TasksSpec -> source -> TaskCollection``; encoding goes ``TaskCollection -> EncodedCollection`` through an
Arrow cache. Names are imported on first use, so that importing this package loads neither numpy nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion.tasks.batches import Batch
    from apportion.tasks.collection import TaskCollection
    from apportion.tasks.drawing import table
    from apportion.tasks.encoded import EncodedCollection, EncodedSplit, EncodedTask
    from apportion.tasks.encoding import encode, encode_examples, load_encoded
    from apportion.tasks.example import Example, Task
    from apportion.tasks.showing import shown
    from apportion.tasks.sources import SOURCES
    from apportion.tasks.sources.playground import exact_match
    from apportion.tasks.spec import TasksSpec, load_tasks
    from apportion.tasks.targets import Targets
    from apportion.tasks.tokenizers import ensure_pad, load_tokenizer_trained, train_tokenizer
    from apportion.tasks.validation import batched, rotating

_HOME = {
    "Batch": "batches",
    "EncodedCollection": "encoded",
    "EncodedSplit": "encoded",
    "EncodedTask": "encoded",
    "Example": "example",
    "SOURCES": "sources",
    "Task": "example",
    "Targets": "targets",
    "TaskCollection": "collection",
    "TasksSpec": "spec",
    "batched": "validation",
    "encode": "encoding",
    "encode_examples": "encoding",
    "ensure_pad": "tokenizers",
    "exact_match": "sources.playground",
    "load_encoded": "encoding",
    "load_tasks": "spec",
    "load_tokenizer_trained": "tokenizers",
    "rotating": "validation",
    "shown": "showing",
    "table": "drawing",
    "train_tokenizer": "tokenizers",
}

__all__ = [
    "SOURCES",
    "Batch",
    "EncodedCollection",
    "EncodedSplit",
    "EncodedTask",
    "Example",
    "Targets",
    "Task",
    "TaskCollection",
    "TasksSpec",
    "batched",
    "encode",
    "encode_examples",
    "ensure_pad",
    "exact_match",
    "load_encoded",
    "load_tasks",
    "load_tokenizer_trained",
    "rotating",
    "shown",
    "table",
    "train_tokenizer",
]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
