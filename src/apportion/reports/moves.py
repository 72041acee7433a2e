"""Where an arm's tokens went against a baseline's, in words: whom it took from, and whom it gave to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from apportion.reports import words
from apportion.reports.traced import traced, tracing
from apportion.reports.view import Arm

_MOVED = 0.01  # of all tokens: an arm that moved less than this has the baseline's mixture
_CLEAR = 0.005  # of all tokens: a task that moved less than this is not named
_NAMED = 3


def shares(arm: Arm) -> dict[str, float]:
    """Return the share of each task in the arm's supervised tokens, the mean over its finished runs."""
    found = [run.mixture["token_averaged"] for run in arm.finished if run.mixture]
    tasks = dict.fromkeys(task for run in found for task in run)
    return {task: fmean(run.get(task, 0.0) for run in found) for task in tasks}


def moved(ours: Arm, other: Arm) -> list[str]:
    """Return one sentence on whom ``ours`` took tokens from and whom it gave them to; none where hardly any moved.

    The share of all tokens that moved is half the sum of the differences. At most three tasks are named on a side, those
    that moved most, and none that moved by less than half a point.
    """
    mine, theirs = shares(ours), shares(other)
    if not mine or not theirs:
        return []
    change = {task: mine.get(task, 0.0) - theirs.get(task, 0.0) for task in {**theirs, **mine}}
    whole = sum(map(abs, change.values())) / 2
    if whole < _MOVED:
        return []
    order = sorted(change, key=lambda task: change[task])
    took = [task for task in order if change[task] <= -_CLEAR]
    gave = [task for task in reversed(order) if change[task] >= _CLEAR]
    names = (ours.name, other.name)
    part = traced(words.percent(whole), *names)
    said = [_side([_from_to(task, theirs, mine, names) for task in side], names) for side in (took, gave)]
    return [
        f"{ours.name} moved {part} of {other.name}’s tokens: it took them from {said[0]}, and gave them to {said[1]}."
    ]


def _from_to(task: str, before: Mapping[str, float], after: Mapping[str, float], arms: Sequence[str]) -> str:
    ends = f"{words.percent(before.get(task, 0.0))} to {words.percent(after.get(task, 0.0))}"
    return f"{task} ({traced(ends, *arms)})"


def _side(named: Sequence[str], arms: Sequence[str]) -> str:
    if not named:
        return "many tasks, a little each"
    return words.together(named) if len(named) <= _NAMED else words.listing(list(named), _NAMED, tracing(*arms))
