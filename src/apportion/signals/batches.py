"""A padded batch with its counters, made on the CPU so that accounting never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.tasks.encoded import IGNORED

# Rounding lengths up keeps matmul shapes few and aligned; the padding it adds is counted as padding.
LENGTH_MULTIPLE = 8


@dataclass(frozen=True)
class Batch:
    """B examples padded on the right to length L, with S supervised positions.

    Shapes: ``input_ids`` and ``attention_mask`` (B, L) int64; ``tasks`` (B,) index of each example's task; ``positions``
    (S,) flat indices into (B * L) of the logits that predict a label; ``targets`` (S,) those labels; ``rows`` (S,) the
    example each belongs to.

    Counters (plain ints): ``supervised`` S, ``processed`` real tokens, ``padded`` B * L, ``squares`` the sum over examples
    of length squared, which attention costs grow with.
    """

    input_ids: Tensor
    attention_mask: Tensor
    tasks: Tensor
    positions: Tensor
    targets: Tensor
    rows: Tensor
    supervised: int
    processed: int
    padded: int
    squares: int

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


def collate(examples: Sequence[tuple[np.ndarray, np.ndarray]], tasks: Sequence[int], pad_id: int) -> Batch:
    """Pad ``(input_ids, labels)`` pairs on the right and count their tokens.

    Args:
        examples: Per example, input ids and labels of one length; labels are not shifted, -100 means no label.
        tasks: Index of each example's task.
        pad_id: Token that fills up; it is masked out and never a label.
    """
    lengths = np.array([len(ids) for ids, _ in examples])
    longest = -(-int(lengths.max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    input_ids = np.full((len(examples), longest), pad_id, dtype=np.int64)
    labels = np.full((len(examples), longest), IGNORED, dtype=np.int64)
    for row, (ids, marks) in enumerate(examples):
        input_ids[row, : len(ids)] = ids
        labels[row, : len(marks)] = marks
    mask = np.arange(longest) < lengths[:, None]
    rows, columns = np.nonzero(labels[:, 1:] != IGNORED)
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        tasks=torch.as_tensor(np.asarray(tasks, dtype=np.int64)),
        positions=torch.from_numpy(rows * longest + columns),
        targets=torch.from_numpy(labels[rows, columns + 1]),
        rows=torch.from_numpy(rows),
        supervised=len(rows),
        processed=int(lengths.sum()),
        padded=int(mask.size),
        squares=int((lengths**2).sum()),
    )
