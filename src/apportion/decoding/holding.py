"""What holds each row of a batch to its own budget while transformers generates: who is asked last, and where it stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteria

from apportion.thinking.forcer import Endless, ThinkingForcer
from apportion.thinking.tags import find


@contextmanager
def asked_last(model: Any, forcer: ThinkingForcer | None) -> Iterator[None]:  # noqa: ANN401 - a transformers model
    """Within the block let generation ask ``forcer`` after all other processors, for which it has no argument.

    What is given as ``logits_processor`` stands before temperature and top-p: an end that becomes ``wait`` would be
    drawn with another probability than the end had.

    Raises:
        RuntimeError: Generation that never asked, as that of a model around the one it is called on.
    """
    if forcer is None:
        yield
        return
    prepared, asked = model._get_logits_processor, []

    def ordered(*args: Any, **kwargs: Any) -> LogitsProcessorList:  # noqa: ANN401
        asked.append(True)
        first = [Endless(forcer)] if forcer.sampling else []
        return LogitsProcessorList([*first, *prepared(*args, **kwargs), forcer])

    model._get_logits_processor = ordered
    try:
        yield
    finally:
        del model._get_logits_processor
    if not asked:
        raise RuntimeError(f"{type(model).__name__} generates by another model: give that one")


class Stops(StoppingCriteria):
    """Stops each row where its budget ends, whatever the others still write.

    Args:
        starts: Where each row's text begins in the ids.
        rooms: How many tokens it may have.
        forcer: What holds its thinking; None where there is none.
        answer: Tokens behind the close tag, and behind words that are forced.
        early: Whether it stops at a close tag that was not forced.
    """

    def __init__(
        self,
        starts: Sequence[int],
        rooms: Sequence[int],
        forcer: ThinkingForcer | None = None,
        answer: int = 0,
        early: Sequence[bool] | None = None,
    ) -> None:
        limits = [start + room for start, room in zip(starts, rooms, strict=True)]
        self._limits, self._first = torch.tensor(limits), min(limits)
        self._rooms, self._forcer, self._answer = list(rooms), forcer, answer
        self._early = torch.tensor(early or [False] * len(rooms))

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return which rows of (rows, length) stop, (rows,)."""
        if self._limits.device != input_ids.device:
            self._limits, self._early = self._limits.to(input_ids.device), self._early.to(input_ids.device)
        beams = len(input_ids) // len(self._limits)
        stops = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if input_ids.shape[1] >= self._first:
            stops = (self._limits <= input_ids.shape[1]).repeat_interleave(beams)
        read = None if self._forcer is None else self._forcer.read(input_ids)
        if self._forcer is None or read is None or not read.ended:
            return stops
        closed, forced, early = ~read.thinking, read.forced, self._early.repeat_interleave(beams)
        behind = read.written - read.end - forced * len(self._forcer.tags.answer)
        return stops | (closed & ((behind >= self._answer) | (early & ~forced)))

    def kept(self, row: int, written: Sequence[int], most: int | None) -> list[int]:
        """Return what a row wrote before it stopped: where no end of text is known rows go on until all have stopped."""
        room = self._rooms[row]
        if self._forcer is not None:
            tags = self._forcer.tags
            first = find(written, tags.close)
            if first is not None:
                end = first + len(tags.close)
                forced = most is not None and end > most
                early = bool(self._early[row]) and not forced
                room = min(room, end if early else end + forced * len(tags.answer) + self._answer)
        return list(written[:room])
