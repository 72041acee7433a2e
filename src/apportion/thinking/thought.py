"""What a model wrote, told apart: thinking, the answer, and what was inserted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from apportion.budget.thinking import ThinkingBudget
from apportion.thinking.tags import TagIds, find

Kind = Literal["thinking", "answer", "inserted"]


@dataclass(frozen=True)
class Thought:
    """A row's generated tokens by kind.

    ``thinking`` stands before the first close tag, with every ``wait`` in it; all of it where no tag ends it. A tag
    that the model wrote, or began, is of the kind ``answer``. ``answer`` is what stands behind the tag, and behind
    words that were forced.

    Attributes:
        kinds: Of each token.
        thinking, answer: The ids of the two.
        closed: Whether a close tag ends the thinking.
        forced: Whether that tag was forced, or a part of it.
    """

    kinds: tuple[Kind, ...]
    thinking: tuple[int, ...]
    answer: tuple[int, ...]
    closed: bool
    forced: bool


def split(written: Sequence[int], tags: TagIds, budget: ThinkingBudget, put_off: Collection[int] = ()) -> Thought:
    """Tell apart what was written since thinking began.

    Args:
        written: The generated ids.
        tags: The tags' ids.
        budget: What the row was held to.
        put_off: Places at which a ``wait`` stands in place of an end; other tokens there are the model's own.
    """
    kinds: list[Kind] = ["thinking"] * len(written)
    for place in put_off:
        for at in range(place, min(place + len(tags.wait), len(written))):
            if tuple(written[place : place + len(tags.wait)]) == tags.wait:
                kinds[at] = "inserted"
    first = find(written, tags.close)
    if first is None:
        # Cut off inside a tag that is being forced: behind the budget nothing is thinking.
        most = len(written) if budget.most is None else min(budget.most, len(written))
        begun = most - _begun(written[:most], tags.close) if most < len(written) else most
        kinds[begun:most] = ["answer"] * (most - begun)
        kinds[most:] = ["inserted"] * (len(written) - most)
        return Thought(tuple(kinds), tuple(written[:begun]), (), closed=False, forced=most < len(written))
    end = first + len(tags.close)
    forced = budget.most is not None and end > budget.most
    words = len(tags.answer) if forced else 0
    kinds[first:] = ["answer"] * (len(written) - first)
    if forced and budget.most is not None:
        stop = min(end + words, len(written))
        kinds[budget.most : stop] = ["inserted"] * (stop - budget.most)
    return Thought(tuple(kinds), tuple(written[:first]), tuple(written[end + words :]), closed=True, forced=forced)


def _begun(ids: Sequence[int], tag: Sequence[int]) -> int:
    """Return how many tokens of a tag the ids end in, of those that are not all of it."""
    sizes = range(min(len(tag) - 1, len(ids)), 0, -1)
    return next((size for size in sizes if tuple(ids[len(ids) - size :]) == tuple(tag[:size])), 0)
