"""Encoded tasks: token ids, labels and token counts by kind, in flat arrays that may lie in a memory-mapped file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from apportion._errors import ApportionError, nearest

IGNORED = -100
SCHEMA = pa.schema(
    [
        pa.field("id", pa.large_string()),
        pa.field("tokens", pa.large_list(pa.int32())),
        pa.field("supervised", pa.int64()),
        pa.field("processed", pa.int64()),
        pa.field("key", pa.uint64()),
    ]
)


class EncodedSplit:
    """The examples of one split as token ids and labels.

    ``supervised`` and ``processed`` are (n,) int64: labelled tokens, and all tokens, of each example. The file holds one
    int32 a token: the id ``t`` where it is context, ``~t`` (below zero) where it is supervised. ``keys`` is (n,) uint64:
    examples of one prompt, or conversations of one opening, have the same.

    Args:
        batch: The split as it lies in the file.
        rows: Those of its examples that are in this split, ascending; all of them where None.
    """

    def __init__(self, batch: pa.RecordBatch, rows: np.ndarray | None = None) -> None:
        tokens = batch.column("tokens")
        self._batch, self._rows = batch, rows
        self._offsets: np.ndarray = tokens.offsets.to_numpy()
        self._tokens: np.ndarray = tokens.values.to_numpy()
        chosen = slice(None) if rows is None else rows
        self.supervised: np.ndarray = batch.column("supervised").to_numpy()[chosen]
        self.processed: np.ndarray = batch.column("processed").to_numpy()[chosen]
        self.keys: np.ndarray = batch.column("key").to_numpy()[chosen]

    @classmethod
    def from_arrays(
        cls,
        ids: Sequence[str],
        examples: Sequence[tuple[np.ndarray, np.ndarray]],
        keys: Sequence[int] | None = None,
    ) -> EncodedSplit:
        """Build a split from ``(input_ids, labels)`` pairs, labels being ids or -100; position 0 has no label."""
        signed = [np.where(labels == IGNORED, tokens, ~tokens).astype(np.int32) for tokens, labels in examples]
        return cls(to_batch(ids, signed, keys))

    def __len__(self) -> int:
        return len(self.supervised)

    @cached_property
    def ids(self) -> list[str]:
        """The examples' ids, in order."""
        ids: list[str] = self.id_column.to_pylist()
        return ids

    @property
    def id_column(self) -> pa.Array:
        """The same where they lie, (n,) large strings."""
        column = self._batch.column("id")
        return column if self._rows is None else column.take(pa.array(self._rows))

    def subset(self, rows: np.ndarray) -> EncodedSplit:
        """Return the split of the examples at ``rows``, ascending; their tokens stay where they lie."""
        return EncodedSplit(self._batch, rows if self._rows is None else self._rows[rows])

    def example(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return example ``i`` as ``(input_ids, labels)``, (length,) int64 each.

        Labels are -100 outside the completion and are not shifted: position t's label is predicted from t - 1.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of a split of {len(self)}")
        at = i if self._rows is None else self._rows[i]
        signed = self._tokens[self._offsets[at] : self._offsets[at + 1]].astype(np.int64)
        labelled = signed < 0
        tokens = np.where(labelled, ~signed, signed)
        return tokens, np.where(labelled, tokens, IGNORED)


@dataclass(frozen=True)
class EncodedTask:
    """A task's three encoded splits, and its instruction as a text where that stands apart from the prompts."""

    name: str
    train: EncodedSplit
    validation: EncodedSplit
    test: EncodedSplit
    instruction: str = ""


class EncodedCollection:
    """Encoded tasks in the collection's order.

    ``findings`` are the collection's own and those of encoding: truncations, drops, fall-backs. ``targets`` are the names of
    those that are targets with data of their own; they come last.
    """

    def __init__(
        self, tasks: Sequence[EncodedTask], findings: Sequence[str], fingerprint: str, targets: Sequence[str] = ()
    ) -> None:
        self.tasks = tuple(tasks)
        self.findings = list(findings)
        self.fingerprint = fingerprint
        self.targets = tuple(targets)
        self._index = {task.name: i for i, task in enumerate(self.tasks)}

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The tasks' instructions, in order, as texts; "" where a task's instruction is part of its prompts."""
        return tuple(task.instruction for task in self.tasks)

    @property
    def supervised_total(self) -> int:
        """Supervised tokens in all train splits: one epoch of everything."""
        return sum(int(task.train.supervised.sum()) for task in self.tasks)

    def kept(self, rows: Sequence[np.ndarray]) -> EncodedCollection:
        """Return the tasks with those train examples alone, ascending ``rows`` a task; one that keeps none is left out."""
        tasks = [
            replace(task, train=task.train.subset(of)) for task, of in zip(self.tasks, rows, strict=True) if len(of)
        ]
        return EncodedCollection(tasks, self.findings, self.fingerprint, self.targets)

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return, by task and split, the number of examples, supervised tokens and processed tokens."""
        return {
            task.name: {
                name: {
                    "examples": len(split),
                    "supervised": int(split.supervised.sum()),
                    "processed": int(split.processed.sum()),
                }
                for name, split in (("train", task.train), ("validation", task.validation), ("test", task.test))
            }
            for task in self.tasks
        }

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[EncodedTask]:
        return iter(self.tasks)

    def __getitem__(self, name: str) -> EncodedTask:
        if name not in self._index:
            raise ApportionError(f"Unknown task '{name}'{nearest(name, self._index)}.")
        return self.tasks[self._index[name]]


def to_batch(ids: Sequence[str], signed: Sequence[np.ndarray], keys: Sequence[int] | None = None) -> pa.RecordBatch:
    """Return one split as a record batch; ``signed`` holds an int32 array an example, below zero where supervised.

    Without ``keys`` every example is of a prompt of its own.
    """
    lengths = np.fromiter((len(tokens) for tokens in signed), np.int64, len(signed))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    flat = np.concatenate(signed) if signed else np.zeros(0, np.int32)
    # Running count of labels: its differences at the offsets are the counts by example, empty ones included.
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(flat < 0)])
    return pa.record_batch(
        [
            pa.array(list(ids), pa.large_string()),
            pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat)),
            pa.array(np.diff(running[offsets])),
            pa.array(lengths),
            pa.array(np.arange(len(ids)) if keys is None else keys, pa.uint64()),
        ],
        schema=SCHEMA,
    )
