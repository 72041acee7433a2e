"""One thinking, cut at every budget and answered there: what a roll-out is, as tokens, rewards and places."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """What is asked: the task's name, the prompt's row, its tokens up to the open tag, and the answers that are right."""

    task: str
    row: dict[str, Any]
    ids: Ids
    references: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """An answer to thinking that was cut.

    Attributes:
        ids: Its tokens, the end of text among them where it was written.
        text: As read.
        reward: R.
        right: Whether it is one of the answers wanted, and well formed.
    """

    ids: Ids
    text: str
    reward: float
    right: bool


@dataclass(frozen=True)
class Trace:
    """A roll-out.

    Attributes:
        problem: What was asked.
        thinking: Its tokens, at most the largest budget.
        tail: What ended it: a close tag, and words that were put behind it.
        chosen: Of each token of the tail, whether the model chose it.
        inserted: The tail of a cut: a close tag and those words.
        end: The index of the first budget that it ended within; from there on all budgets share one cut.
        summaries: By budget, as many each.
    """

    problem: Problem
    thinking: Ids
    tail: Ids
    chosen: tuple[bool, ...]
    inserted: Ids
    end: int
    summaries: tuple[tuple[Summary, ...], ...]

    @property
    def forced(self) -> bool:
        """Whether its end was not the model's own."""
        return not all(self.chosen)

    def kept(self, budget: int, budgets: Sequence[int]) -> int:
        """Return how many tokens of thinking stand before the cut of the budget with this index."""
        return len(self.thinking) if budget >= self.end else budgets[budget]

    def close(self, budget: int) -> Ids:
        """Return what stands between the thinking and the answer at the budget with this index."""
        return self.tail if budget >= self.end else self.inserted


def segment_of(place: int, budgets: Sequence[int]) -> int:
    """Return the segment that a token of thinking is in, by its index; the last one where it is beyond all budgets."""
    return min(bisect_right(budgets, place), len(budgets) - 1)


def rewards_of(traces: Sequence[Trace], group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rewards (Q, G, S, A) and the ends (Q, G) of traces in groups of the same prompt."""
    worth = np.array([[[summary.reward for summary in cut] for cut in trace.summaries] for trace in traces])
    ends = np.array([trace.end for trace in traces])
    return worth.reshape(-1, group, *worth.shape[1:]), ends.reshape(-1, group)
