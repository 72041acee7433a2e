"""A padded or packed batch with its counters, made on the CPU so that accounting never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.budget.prices import Work
from apportion.tasks.encoded import IGNORED

# Rounding lengths up keeps matmul shapes few and aligned; the padding it adds is counted as padding.
LENGTH_MULTIPLE = 8


@dataclass(frozen=True)
class Batch:
    """B examples in R rows padded on the right to length L, with S supervised positions.

    Unpacked, a row is an example and R = B. Packed, a row holds several, one after the other, and attention stays inside
    each: transformers finds their borders where ``position_ids`` do not go up by one.

    Shapes: ``input_ids`` and ``attention_mask`` (R, L) int64; ``position_ids`` (R, L) each token's place in its example, 0
    for padding; ``segments`` (R, L) the example each token belongs to, padding to the one before it; ``tasks`` (B,) index
    of each example's task; ``positions`` (S,) flat indices into (R * L) of the logits that predict a label; ``targets``
    (S,) those labels; ``examples`` (S,) the example each belongs to; ``weights`` (B,) how much each example counts, where
    that is known before the forward pass.

    Counters (plain ints): ``supervised`` S, ``processed`` real tokens, ``padded`` R * L; ``work`` what its price follows
    from.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    segments: Tensor
    tasks: Tensor
    positions: Tensor
    targets: Tensor
    examples: Tensor
    packed: bool
    supervised: int
    processed: int
    padded: int
    work: Work
    weights: Tensor | None = None

    def __len__(self) -> int:
        return self.tasks.shape[0]

    @property
    def model_inputs(self) -> dict[str, Any]:
        """What a causal language model is called with."""
        if self.packed:
            # With a mask given, transformers does not look for the borders of packed examples.
            return {"input_ids": self.input_ids, "position_ids": self.position_ids, "use_cache": False}
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "use_cache": False}

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


def collate(
    examples: Sequence[tuple[np.ndarray, np.ndarray]],
    tasks: Sequence[int],
    pad_id: int,
    rows: Sequence[Sequence[int]] | None = None,
) -> Batch:
    """Lay ``(input_ids, labels)`` pairs out in rows, pad these on the right, and count their tokens.

    Args:
        examples: Per example, input ids and labels of one length; labels are not shifted, -100 means no label, and the
            first of an example never is one.
        tasks: Index of each example's task.
        pad_id: Token that fills up; nothing attends to it and it is never a label.
        rows: The examples of each row, each example in one row; None gives each a row of its own. Given, the batch is
            packed.
    """
    lengths = np.array([len(ids) for ids, _ in examples], dtype=np.int64)
    layout = [[k] for k in range(len(examples))] if rows is None else rows
    longest = max((int(lengths[list(row)].sum()) for row in layout), default=1)
    shape = (max(len(layout), 1), -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)
    input_ids, labels = (np.full(shape, fill, dtype=np.int64) for fill in (pad_id, IGNORED))
    mask, places, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for row, members in enumerate(layout):
        start = 0
        for k in members:
            ids, marks = examples[k]
            span = slice(start, start + len(ids))
            input_ids[row, span], labels[row, span] = ids, marks
            mask[row, span], places[row, span] = 1, np.arange(len(ids))
            segments[row, start:] = k
            start += len(ids)
    at, column = np.nonzero(labels[:, 1:] != IGNORED)
    work = work_of(examples, tasks)
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy(places),
        segments=torch.from_numpy(segments),
        tasks=torch.as_tensor(np.asarray(tasks, dtype=np.int64)),
        positions=torch.from_numpy(at * shape[1] + column),
        targets=torch.from_numpy(labels[at, column + 1]),
        examples=torch.from_numpy(segments[at, column]),
        packed=rows is not None,
        supervised=len(at),
        processed=int(lengths.sum()),
        padded=int(mask.size),
        work=work,
    )


def work_of(examples: Sequence[tuple[np.ndarray, np.ndarray]], tasks: Sequence[int]) -> Work:
    """Return what a pass over ``(input_ids, labels)`` pairs of these tasks is priced by."""
    parts = [(_context(labels), len(labels)) for _, labels in examples]
    return Work(
        tokens=sum(length for _, length in parts),
        pairs=sum(length**2 for _, length in parts),
        examples=tuple((int(task), start, length - start) for task, (start, length) in zip(tasks, parts, strict=True)),
    )


def _context(labels: np.ndarray) -> int:
    """Return how many tokens come before the first supervised one."""
    supervised = labels != IGNORED
    return int(supervised.argmax()) if supervised.any() else len(labels)


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Return rows of indices whose lengths sum to at most ``room``, the longest rows last: first fit decreasing.

    Needs at most 11/9 of the fewest possible rows, and one (Johnson 1973).

    Args:
        lengths: Length of each example, none more than ``room``.
        room: Tokens that a row may hold.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        row = next((i for i, free in enumerate(left) if lengths[k] <= free), None)
        if row is None:
            rows.append([])
            left.append(room)
            row = len(rows) - 1
        rows[row].append(k)
        left[row] -= lengths[k]
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: -left[i])]
