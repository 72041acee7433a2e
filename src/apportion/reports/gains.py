"""Who gains and who loses: each task's final loss under an arm against the best baseline's, with its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.reports import words
from apportion.reports.estimates import Part, estimate
from apportion.reports.gap import gap_between
from apportion.reports.view import Arm, View

MANY, _ENDS = 40, 15  # of more tasks than that only so many are shown at either end, the others on demand


@dataclass(frozen=True)
class Change:
    """A task's or target's mean final loss less the baseline's: below zero is better.

    ``error`` is its standard error over examples and seeds, None where neither is known. ``beyond``: over two seeds or more
    it is larger than chance explains, Student's t at 5 %.
    """

    task: str
    target: bool
    gap: float
    error: float | None
    beyond: bool


@dataclass(frozen=True)
class Bar:
    """A change as drawn: where the bar and the line of plus and minus one error start and how wide they are, in percent."""

    change: Change
    bar: tuple[float, float]
    whisker: tuple[float, float]
    text: str
    error: str


def compared(view: View) -> Arm | None:
    """Return the arm whose tasks are shown against the best baseline's: the best that learns, else the next plain one."""
    base = view.baseline
    if base is None:
        return None
    others = [arm for arm in view.arms if arm is not base and arm.numbers["final"][view.metric]]
    lowest = min(others, key=lambda arm: arm.numbers["final"][view.metric]["mean"], default=None)
    return view.candidate or lowest


def changes(view: View, arm: Arm) -> list[Change]:
    """Return how each target and then each other task changed against the best baseline, the largest gain first."""
    base = view.baseline
    if base is None or arm is base:
        return []
    aims, tasks = (gap_between(arm, base, importance) for importance in (view.targets, {}))
    targets = [_change(part, True) for part in aims.parts] if aims and view.targets else []
    rest = [_change(part, False) for part in tasks.parts if part.task not in view.targets] if tasks else []
    return [*sorted(targets, key=lambda change: change.gap), *sorted(rest, key=lambda change: change.gap)]


def _change(part: Part, target: bool) -> Change:
    found, seeds = estimate([part]), len(part.by_seed)
    known = bool(part.examples) or seeds > 1
    return Change(part.task, target, -part.gap, found.error if known else None, seeds > 1 and found.beyond)


def bars(changed: Sequence[Change]) -> list[Bar]:
    """Return the changes as bars from the middle of the drawing, all on one scale."""
    far = max((abs(change.gap) + (change.error or 0.0) for change in changed), default=0.0) or 1.0
    return [_bar(change, far) for change in changed]


def _bar(change: Change, far: float) -> Bar:
    error = change.error or 0.0

    def span(low: float, high: float) -> tuple[float, float]:
        return 50 + 50 * low / far, 50 * (high - low) / far

    low, high = min(change.gap, 0.0), max(change.gap, 0.0)
    said = "" if change.error is None else f"± {words.loss(change.error)}"
    return Bar(change, span(low, high), span(change.gap - error, change.gap + error), words.signed(change.gap), said)


def ends(drawn: Sequence[Bar]) -> Sequence[Bar]:
    """Return all bars, or of very many the targets and as many others at either end as read well."""
    if len(drawn) <= MANY:
        return drawn
    targets = [bar for bar in drawn if bar.change.target]
    rest = [bar for bar in drawn if not bar.change.target]
    return [*targets, *rest[:_ENDS], *rest[max(_ENDS, len(rest) - _ENDS) :]]


def said(view: View) -> list[tuple[Arm, str]]:
    """Return for each arm but the best baseline how many tasks ended lower and higher, and how many clearly so."""
    found = [(arm, changes(view, arm)) for arm in view.arms]
    return [(arm, _said(changed, view)) for arm, changed in found if changed]


def _said(changed: Sequence[Change], view: View) -> str:
    what = "targets and tasks" if view.targets else "tasks"
    sides = [[c for c in changed if c.gap < 0], [c for c in changed if c.gap > 0]]
    clear = [sum(c.beyond for c in side) for side in sides]
    sure = [
        f" ({n} beyond chance)" if side and len(view.seeds) > 1 else "" for side, n in zip(sides, clear, strict=True)
    ]
    return f"{len(sides[0])} of {len(changed)} {what} ended lower{sure[0]}, {len(sides[1])} higher{sure[1]}."
