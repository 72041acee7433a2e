"""When a signal measures again: every so many optimizer steps, or once in every so large a share of the budget."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator

from apportion.budget.cadence import next_due

# Part of a stretch by which a share that is added up may miss one that is multiplied.
SLACK = 1e-9


def read_refresh(value: object) -> int | float:
    """Read ``60`` (optimizer steps), or a share of the budget such as ``"1%"`` or ``0.01``."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if text.endswith("%"):
        number /= 100
    elif text.removeprefix("+").isdecimal() and number >= 1:
        return int(text)
    if isinstance(value, bool) or not 0 < number <= 1 or text == "1":
        raise ValueError("write a whole number of optimizer steps, such as 60, or a share of the budget, such as 1%")
    return number


Refresh = Annotated[int | float, BeforeValidator(read_refresh)]
"""An int counts optimizer steps, a float is a share of the budget in (0, 1]."""


def points_before(place: float, span: float, points: int) -> int:
    """Return how many of ``points``, evenly spaced strictly within a stretch of length ``span``, lie before ``place``."""
    return max(min(points, int(-(-place * (points + 1) // span)) - 1), 0)


def reads_within(steps: float, span: float, reads: int | None) -> float:
    """Return how many of the first ``steps`` steps after a measurement are read, of ``span`` until the next; None: all."""
    return steps if reads is None or reads >= span else points_before(steps, span, reads)


class Cadence:
    """When something is due, and which steps are read in between.

    Its place is the optimizer step, or the share of the budget that is spent, whichever ``refresh`` counts in.

    The i-th read, of i = 1 .. reads, is the step in which i / (reads + 1) of the way to the next measurement is passed.
    Not the first steps: training swings across narrow valleys, and right after a direction was taken the gradients share
    its swing, which says nothing of where to go. A step that passes several such places is read once.

    Args:
        refresh: Optimizer steps, or a share of the budget, between two measurements.
        reads: Steps between two measurements, evenly spaced, that are read; None for all.
    """

    def __init__(self, refresh: int | float, reads: int | None = None) -> None:
        self._refresh, self._reads = refresh, reads
        self._in_steps = isinstance(refresh, int)
        self._at: float = 0
        self._next: float = 0
        self._began: float = 0
        self._ahead: int | None = None
        self._span: float = refresh

    def due(self, step: int, progress: float) -> bool:
        """Return whether to measure before a step, counted from 0, at this share of the budget.

        From the second step on: before the first one Adam has no moments to see a gradient through.
        """
        self._at = step - 1 if self._in_steps else progress
        if step < 1 or self._next - self._at > SLACK * self._refresh:
            return False
        self._next = next_due(self._at, self._refresh)
        return True

    def begin(self, ahead: int | None = None) -> None:
        """Count reads from the step that is due now; ``ahead`` steps from it on are read, where that is said."""
        self._began, self._span = self._at, self._next - self._at
        self._ahead = ahead

    def reads(self, progress: float) -> bool:
        """Return whether the step under way is read, the budget being spent to ``progress`` with it."""
        if self._ahead is not None:
            self._ahead -= 1
            return self._ahead >= 0
        if self._reads is None:
            return True
        start = self._at - self._began
        end = start + 1 if self._in_steps else progress - self._began
        return points_before(end, self._span, self._reads) > points_before(start, self._span, self._reads)

    def expected(self, steps: int, ahead: int | None = None) -> tuple[float, float]:
        """Return how often a run of ``steps`` steps measures, and how many steps it reads in between.

        Args:
            steps: Of the run.
            ahead: As `begin` will be told.
        """
        span = self._refresh if self._in_steps else max(self._refresh * steps, 1.0)
        whole, rest = divmod(max(steps - 1, 0), span)
        if ahead is not None:
            return whole + (rest > 0), whole * min(ahead, span) + min(ahead, rest)
        reads = whole * reads_within(span, span, self._reads) + reads_within(rest, span, self._reads)
        return whole + (rest > 0), reads

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"next": self._next, "began": self._began, "span": self._span, "ahead": self._ahead}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._next, self._began, self._span = state["next"], state["began"], state["span"]
        self._ahead = state["ahead"]
