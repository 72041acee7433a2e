"""An end of thinking that comes too soon is taken back, and thinking goes on behind ``wait``: round by round.

Where a close tag has several tokens, its first ones are read by the model before it is known to be one. So the text is
read again without them. It is what s1 (arXiv 2501.19393) does with a tag of any length, but that it looks first
whether anything is left of the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from apportion._errors import ApportionError
from apportion.budget.thinking import ThinkingBudget
from apportion.thinking.tags import TagIds, find

# Writes on: rows by number, what each of them has written, and whether it stops at an end that the model chose;
# returns all that each has written then.
Write = Callable[[Sequence[int], Sequence[Sequence[int]], Sequence[bool]], Sequence[Sequence[int]]]


@dataclass
class Row:
    """What a row has written since thinking began, and at which places ``wait`` was written in place of an end."""

    written: list[int] = field(default_factory=list)
    put_off: set[int] = field(default_factory=set)


def think_in_rounds(write: Write, budgets: Sequence[ThinkingBudget], tags: TagIds) -> list[Row]:
    """Let rows think until their ends need no more be put off, and answer.

    Args:
        write: Writes on in given rows; holds each to the most that it may think, and goes on into the answer where it
            is not to stop.
        budgets: Of each row.
        tags: The tags' ids.

    Raises:
        ApportionError: No ``wait`` that the tokenizer can write.

    Cost: each round reads again what was written before it, which is the writer's to charge.
    """
    if not tags.wait:
        raise ApportionError(
            "'thinking.wait' is a word that the model's tokenizer cannot write: give one that it can, or leave out "
            "'least' and 'ignore'."
        )
    rows, left = [Row() for _ in budgets], list(range(len(budgets)))
    while left:
        stops = [_puts_off(rows[i].written, budgets[i], tags) for i in left]
        found = write(left, [rows[i].written for i in left], stops)
        going = []
        for i, stop, written in zip(left, stops, found, strict=True):
            rows[i].written = list(written)
            if stop and _ended(written, budgets[i], tags):
                kept = list(written[: len(written) - len(tags.close)])
                if _puts_off(kept, budgets[i], tags):
                    rows[i].written = kept + list(tags.wait)
                    rows[i].put_off.add(len(kept))
                going.append(i)
        left = going
    return rows


def _puts_off(written: Sequence[int], budget: ThinkingBudget, tags: TagIds) -> bool:
    """Return whether an end here would be put off; not where ``wait`` has no room."""
    if budget.most is not None and budget.most - len(written) < len(tags.wait):
        return False
    return len(written) < budget.least or _waits(written, budget.least, tags.wait) < budget.ignore


def _waits(written: Sequence[int], start: int, wait: Sequence[int]) -> int:
    """Return how often ``wait`` stands there from a place on; the model's own looks the same."""
    count, at = 0, find(written, wait, start)
    while at is not None:
        count, at = count + 1, find(written, wait, at + len(wait))
    return count


def _ended(written: Sequence[int], budget: ThinkingBudget, tags: TagIds) -> bool:
    """Return whether it ends in a close tag that was not forced."""
    first = find(written, tags.close)
    natural = budget.most is None or len(written) <= budget.most
    return natural and first is not None and first + len(tags.close) == len(written)
