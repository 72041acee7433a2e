"""Thinking held to its budget while text is generated: the end is forced, or put off, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor

from apportion._errors import ApportionError
from apportion.budget.thinking import ThinkingBudget
from apportion.thinking.tags import TagIds

# More tokens than any text has: where no tag stands, and the budget that is no limit.
NEVER = 2**40


@dataclass(frozen=True)
class Reading:
    """What stands in each row of a batch, (rows,) each. All of it follows from the ids, so that beams may change places.

    Attributes:
        written: Tokens since thinking began.
        end: How many of them there were when the first close tag was whole, `NEVER` where none is.
        begun: How many tokens of a close tag the row ends in: the longest proper prefix of it.
        most: The budget of each row.
    """

    written: Tensor
    end: Tensor
    begun: Tensor
    most: Tensor

    @property
    def thinking(self) -> Tensor:
        """Whether no close tag is whole yet."""
        return self.written < self.end

    @property
    def forced(self) -> Tensor:
        """Whether the tag that is whole was forced, or a part of it."""
        return ~self.thinking & (self.end > self.most)


class ThinkingForcer(LogitsProcessor):
    """Ends thinking at most after a row's budget, and not before its ``least`` or while an end is to be ignored.

    Generation begins inside thinking. Every token counts until the close tag is whole, those of a begun tag too. At
    the budget the tag is forced, a token a step: from where the model stands in it, so that a begun tag is gone on
    with and never begun again. While thinking, the end of text is forbidden. An end that comes too soon gives its
    probability to ``wait``: draws are those of a model whose tag is read as ``wait``, exactly where this is the last
    of all processors, and greedy decoding writes ``wait`` where it would have written the tag. Behind a forced end
    the words of ``answer`` are forced. Scores of the answer are left alone. Any ``wait`` at or behind ``least`` uses
    up one of ``ignore``: in the ids the model's own looks the same. After s1 (arXiv 2501.19393).

    Args:
        tags: The tags' ids.
        start: Where thinking begins in the ids, padding included: the prompts' length, or a place a row.
        budgets: A row's, in the batch's order; beams of a row stand side by side.
        ends: Ids that end a text.
        sampling: Whether tokens are drawn; else the best are taken.

    Raises:
        ApportionError: ``least`` or ``ignore`` where close tag or ``wait`` are not one token each, or with beams; an
            end of text inside what is forced; or, when called, rows that are not those of the batch, as continuous
            batching has them.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        tags: TagIds,
        start: int | Sequence[int],
        budgets: Sequence[ThinkingBudget],
        *,
        ends: Sequence[int] = (),
        sampling: bool = False,
    ) -> None:
        super().__init__()
        if set(ends) & set(tags.forced):
            raise ApportionError(
                "'thinking.close' and 'thinking.answer' may not hold the token that ends the model's texts: give others."
            )
        self.tags, self.sampling = tags, sampling
        starts = [start] * len(budgets) if isinstance(start, int) else list(start)
        self._starts, self._low, self._high = torch.tensor(starts), min(starts), max(starts)
        self._most = torch.tensor([NEVER if budget.most is None else budget.most for budget in budgets])
        self._least = torch.tensor([budget.least for budget in budgets])
        self._ignore = torch.tensor([budget.ignore for budget in budgets])
        self._ends, self._close, self._words = map(torch.tensor, (list(ends), tags.close, [*tags.answer, 0]))
        self._waits = any(budget.least or budget.ignore for budget in budgets)
        if self._waits and not waits_by_token(tags):
            raise ApportionError(
                "'thinking.least' and 'thinking.ignore' take a close tag and a 'wait' of one token each to be held token "
                "by token: use think_in_rounds of apportion.thinking.rounds, as 'apportion generate' does by itself."
            )
        # By the length of the ids: in which rows the tag had more score than ``wait``, which took its place.
        self._put_off: dict[int, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) of the token behind ``input_ids`` (rows, length); those given stay."""
        read = self.read(input_ids)
        scores = self._endless(read, scores)
        if self._waits:
            scores = self._wait(read, input_ids, scores)
        after = (read.written - read.end).clamp(max=len(self.tags.answer))
        words = read.forced & (after < len(self.tags.answer))
        forced = words | (read.thinking & (read.written >= read.most))
        if forced.any():
            wanted = torch.where(words, self._words[after.clamp(min=0)], self._close[read.begun])
            rows = forced.nonzero()[:, 0]
            scores = scores.masked_fill(forced[:, None], -torch.inf)
            scores[rows, wanted[rows]] = 0.0
        return scores

    def endless(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with no end of text in rows that think.

        As a processor of its own it stands before those that keep the best few: they might keep the end of text alone.
        """
        return self._endless(self.read(input_ids), scores)

    def read(self, input_ids: Tensor) -> Reading:
        """Return what stands in each row of (rows, length)."""
        self._check(input_ids)
        starts, close, length = self._of(self._starts, input_ids), self.tags.close, input_ids.shape[1]
        size, begun = len(close), torch.zeros_like(starts)
        for count in range(1, min(size, length + 1)):
            ends_so = (input_ids[:, length - count :] == self._close[:count]).all(1) & (length - count >= starts)
            begun = begun.masked_fill(ends_so, count)
        written, most, places = length - starts, self._of(self._most, input_ids), length - self._low - size + 1
        if places < 1:
            return Reading(written, torch.full_like(starts, NEVER), begun, most)
        ids = input_ids[:, self._low :]
        found = ids[:, :places] == close[0]
        for offset in range(1, size):
            found &= ids[:, offset : offset + places] == close[offset]
        if self._low < self._high:
            found &= torch.arange(self._low, self._low + places, device=ids.device) >= starts[:, None]
        first = found.int().argmax(1)
        return Reading(written, (self._low + first + size - starts).masked_fill(~found.any(1), NEVER), begun, most)

    def put_off(self, row: int) -> set[int]:
        """Return the places in what a row wrote at which a ``wait`` is one in place of an end.

        There the tag had more score: of a drawn ``wait`` it is the likelier of the two.
        """
        start = int(self._starts[row])
        return {length - start for length, rows in self._put_off.items() if rows[row]}

    def _endless(self, read: Reading, scores: Tensor) -> Tensor:
        if not len(self._ends) or not read.thinking.any():
            return scores
        scores = scores.clone()
        scores[:, self._ends] = scores[:, self._ends].masked_fill(read.thinking[:, None], -torch.inf)
        return scores

    def _wait(self, read: Reading, input_ids: Tensor, scores: Tensor) -> Tensor:
        if len(input_ids) != len(self._most):
            raise ApportionError("'thinking.least' and 'thinking.ignore' do not go with beams: leave out 'num_beams'.")
        (wait,), (close,) = self.tags.wait, self.tags.close
        behind = torch.arange(input_ids.shape[1], device=input_ids.device) >= (self._starts + self._least)[:, None]
        waits = ((input_ids == wait) & behind).sum(1)
        off = read.thinking & (read.written < read.most)
        off &= (read.written < self._least) | (waits < self._ignore)
        tag, other = scores[:, close], scores[:, wait]
        self._put_off[input_ids.shape[1]] = off & (tag > other)
        joined = torch.logaddexp(other, tag) if self.sampling else torch.maximum(other, tag)
        scores = scores.clone()
        scores[:, wait] = torch.where(off, joined, other)
        scores[:, close] = tag.masked_fill(off, -torch.inf)
        return scores

    def _of(self, by_row: Tensor, input_ids: Tensor) -> Tensor:
        """Return the number of each row for each of its beams."""
        beams = len(input_ids) // len(by_row)
        return by_row if beams == 1 else by_row.repeat_interleave(beams)

    def _check(self, input_ids: Tensor) -> None:
        """Refuse rows that are not the batch's, and bring what is known of them to the ids' device."""
        rows, length = input_ids.shape
        if not rows or rows % len(self._most) or length < self._high:
            raise ApportionError(
                "Thinking is held to its budget in whole batches alone: continuous batching shows a processor single "
                "tokens of rows that come and go."
            )
        if self._starts.device != input_ids.device:
            for name in ("_starts", "_most", "_least", "_ignore", "_ends", "_close", "_words"):
                setattr(self, name, getattr(self, name).to(input_ids.device))


def waits_by_token(tags: TagIds) -> bool:
    """Return whether an end can be put off token by token: by the time a longer tag is known, its tokens stand."""
    return len(tags.close) == 1 and len(tags.wait) == 1
