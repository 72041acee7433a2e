"""Tensors that grow along their tokens without being copied at each step."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 64


class Rows:
    """A tensor (b, heads, n, ...) to which tokens are added at the end; its buffer doubles when it is full.

    A view of it is of the moment: what is added later may move to another buffer.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        # Bytes of a token: they are asked for in every step.
        self._each = 0
        self.length = 0

    def append(self, new: Tensor) -> None:
        """Add ``new`` (b, heads, m, ...)."""
        end = self.length + new.shape[2]
        if self._buffer is None or end > self._buffer.shape[2]:
            self._grow(new, end)
        assert self._buffer is not None
        self._buffer[:, :, self.length : end] = new
        self.length = end

    def _grow(self, new: Tensor, end: int) -> None:
        room = max(_LEAST, 2 * self.length, end)
        grown = new.new_empty((*new.shape[:2], room, *new.shape[3:]))
        if self.length:
            grown[:, :, : self.length] = self.view()
        self._use(grown)

    def _use(self, buffer: Tensor) -> None:
        self._buffer, self._each = buffer, buffer.nbytes // buffer.shape[2]

    def view(self) -> Tensor:
        """Return what it holds, (b, heads, n, ...)."""
        assert self._buffer is not None, "nothing was added yet"
        return self._buffer[:, :, : self.length]

    def replace(self, whole: Tensor) -> None:
        """Hold ``whole`` (b, heads, n, ...) instead, in the same buffer where it fits."""
        if self._buffer is not None and self._buffer.shape[:2] == whole.shape[:2] and self._fits(whole):
            self._buffer[:, :, : whole.shape[2]] = whole
        else:
            self._use(whole.contiguous().clone())
        self.length = whole.shape[2]

    def _fits(self, whole: Tensor) -> bool:
        assert self._buffer is not None
        # A buffer many times as large as what it holds is given back.
        return whole.shape[2] <= self._buffer.shape[2] <= max(_LEAST, 4 * whole.shape[2])

    def crop(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        self.length = min(self.length, length)

    def rows(self, index: Tensor) -> None:
        """Keep the batch rows at ``index``, in that order; a row may be taken twice."""
        if self._buffer is not None:
            self._use(self._buffer.index_select(0, index.to(self._buffer.device)))

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds."""
        return self._each * self.length

    @property
    def reserved(self) -> int:
        """Bytes of its buffer."""
        return self._buffer.nbytes if self._buffer is not None else 0


def gathered(rows: Tensor, indices: Tensor) -> Tensor:
    """Return ``rows`` (b, heads, n, d) at ``indices`` (b, heads, k): (b, heads, k, d)."""
    b, heads, n, d = rows.shape
    if rows.stride()[2:] != (d, 1) or any(stride % d for stride in rows.stride()[:2]):
        rows = rows.contiguous()
    # As one long list of rows, buffer's room and all: taking from it copies a row at a time, a general index a number.
    by_row, by_head = (stride // d for stride in rows.stride()[:2])
    ends = (b - 1) * by_row + (heads - 1) * by_head + n
    starts = torch.arange(b, device=rows.device)[:, None] * by_row + torch.arange(heads, device=rows.device) * by_head
    every = rows.as_strided((ends, d), (d, 1))
    return every.index_select(0, (indices + starts[..., None]).flatten()).view(*indices.shape, d)
