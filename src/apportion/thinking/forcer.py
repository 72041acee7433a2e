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
        length: Of the ids.
        starts: Where thinking began in them.
        end: How many tokens there were since when the first close tag was whole, `NEVER` where none is.
        most: The budget of each row.
        ended: Whether there is a close tag in any row; where there is none most questions need no tensor.
    """

    length: int
    starts: Tensor
    end: Tensor
    most: Tensor
    ended: bool

    @property
    def written(self) -> Tensor:
        """Tokens since thinking began."""
        return self.length - self.starts

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
        self._never = torch.full_like(self._most, NEVER)
        self._ignore = torch.tensor([budget.ignore for budget in budgets])
        self._ends, self._close, self._words = map(torch.tensor, (list(ends), tags.close, [*tags.answer, 0]))
        # The shortest ids in which a row has come to its budget.
        self._first = min(at + most for at, most in zip(starts, self._most.tolist(), strict=True))
        self._read: tuple[Tensor, int | None, Reading] | None = None
        self._is_end: Tensor | None = None
        self._waits = any(budget.least or budget.ignore for budget in budgets)
        # The place in a row's ids before which no end is allowed, and from which on a ``wait`` is counted.
        behind = [at + budget.least for at, budget in zip(starts, budgets, strict=True)]
        self._behind, self._behind_all, self._behind_last = torch.tensor(behind), min(behind), max(behind)
        self._apart = self._behind_all < self._behind_last
        if self._waits and not waits_by_token(tags):
            raise ApportionError(
                "'thinking.least' and 'thinking.ignore' take a close tag and a 'wait' of one token each to be held token "
                "by token: use apportion.thinking.think_in_rounds, as 'apportion generate' does by itself."
            )
        # By the length of the ids: in which rows the tag had more score than ``wait``, which took its place.
        self._put_off: dict[int, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) of the token behind ``input_ids`` (rows, length); those given stay."""
        read = self.read(input_ids)
        scores = self.endless(read, scores)
        if self._waits:
            scores = self._wait(read, input_ids, scores)
        # Before that no row can have come to its budget.
        return scores if read.length < self._first else self._force(read, input_ids, scores)

    def read(self, input_ids: Tensor) -> Reading:
        """Return what stands in each row of (rows, length)."""
        # What stops rows and what scores the next token look at the same tensor, which nobody has changed since.
        mark = None if input_ids.is_inference() else input_ids._version
        if self._read is not None and self._read[0] is input_ids and self._read[1] == mark is not None:
            return self._read[2]
        self._check(input_ids)
        starts, close, length = self._of(self._starts, input_ids), self.tags.close, input_ids.shape[1]
        end, ended, last = self._of(self._never, input_ids), False, length - len(close) + 1
        if last > self._low:
            found = input_ids[:, self._low : last] == close[0]
            for offset in range(1, len(close)):
                found &= input_ids[:, self._low + offset : last + offset] == close[offset]
            if self._low < self._high:
                found &= torch.arange(self._low, last, device=found.device) >= starts[:, None]
            if ended := bool(found.any()):
                first = self._low + found.int().argmax(1) + len(close) - starts
                end = first.masked_fill(~found.any(1), NEVER)
        read = Reading(length, starts, end, self._of(self._most, input_ids), ended)
        self._read = input_ids, mark, read
        return read

    def put_off(self, row: int) -> set[int]:
        """Return the places in what a row wrote at which a ``wait`` is one in place of an end.

        There the tag had more score: of a drawn ``wait`` it is the likelier of the two.
        """
        start = int(self._starts[row])
        return {length - start for length, rows in self._put_off.items() if rows[row]}

    def endless(self, read: Reading, scores: Tensor) -> Tensor:
        """Return the scores with no end of text in rows that think."""
        if not len(self._ends):
            return scores
        if self._is_end is None or self._is_end.device != scores.device:
            self._is_end = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
            self._is_end[self._ends] = True
        thinking = read.thinking[:, None] & self._is_end if read.ended else self._is_end
        return scores.masked_fill(thinking, -torch.inf)

    def _force(self, read: Reading, input_ids: Tensor, scores: Tensor) -> Tensor:
        after = (read.written - read.end).clamp(max=len(self.tags.answer))
        words = read.forced & (after < len(self.tags.answer))
        forced = words | (read.thinking & (read.written >= read.most))
        if not forced.any():
            return scores
        wanted = torch.where(words, self._words[after.clamp(min=0)], self._close[self._begun(read, input_ids)])
        rows = forced.nonzero()[:, 0]
        scores = scores.masked_fill(forced[:, None], -torch.inf)
        scores[rows, wanted[rows]] = 0.0
        return scores

    def _begun(self, read: Reading, input_ids: Tensor) -> Tensor:
        """Return how many tokens of a close tag each row ends in: the longest prefix of it that is not all of it."""
        begun, length = torch.zeros_like(read.starts), read.length
        for count in range(1, min(len(self.tags.close), length + 1)):
            ends_so = (input_ids[:, length - count :] == self._close[:count]).all(1) & (read.written >= count)
            begun = begun.masked_fill(ends_so, count)
        return begun

    def _wait(self, read: Reading, input_ids: Tensor, scores: Tensor) -> Tensor:
        if len(input_ids) != len(self._most):
            raise ApportionError("'thinking.least' and 'thinking.ignore' do not go with beams: leave out 'num_beams'.")
        (wait,), (close,) = self.tags.wait, self.tags.close
        said = input_ids[:, self._behind_all :] == wait
        if self._apart:
            places = torch.arange(said.shape[1], device=said.device) + self._behind_all
            said &= places >= self._behind[:, None]
        off = said.sum(1) < self._ignore
        if read.length < self._behind_last:
            off |= read.length < self._behind
        if read.ended:
            off &= read.thinking
        if read.length >= self._first:
            off &= read.written < read.most
        tag, other = scores[:, close], scores[:, wait]
        self._put_off[read.length] = off & (tag > other)
        joined = torch.logaddexp(other, tag) if self.sampling else torch.maximum(other, tag)
        if not len(self._ends):
            scores = scores.clone()  # else it is no longer the one that was given
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
            for name in ("_starts", "_most", "_never", "_ignore", "_ends", "_close", "_words", "_behind"):
                setattr(self, name, getattr(self, name).to(input_ids.device))


class Endless(LogitsProcessor):
    """Forbids the end of text in rows that think, ahead of all other processors.

    Those that keep the best few might otherwise keep the end of text alone.

    Args:
        forcer: What reads the rows.
    """

    def __init__(self, forcer: ThinkingForcer) -> None:
        super().__init__()
        self._forcer = forcer

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) of the token behind ``input_ids`` (rows, length)."""
        return self._forcer.endless(self._forcer.read(input_ids), scores)


def waits_by_token(tags: TagIds) -> bool:
    """Return whether an end can be put off token by token: by the time a longer tag is known, its tokens stand."""
    return len(tags.close) == 1 and len(tags.wait) == 1
