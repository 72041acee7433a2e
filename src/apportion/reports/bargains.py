"""What the front of loss against all FLOPs says in words: who is on it, what it counts, and who paid more for no gain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from apportion.reports import words
from apportion.reports.front import drawn
from apportion.reports.gap import gap_between
from apportion.reports.view import Arm, View

_BESIDE = {"meta": "steering", "proxy": "smaller runs before", "select": "scoring examples to keep"}
"""What an arm may pay for beside its training and what every run measures, by account."""


def said_of_front(view: View, accounts: Sequence[str]) -> list[str]:
    """Return the sentences beside the chart, none without one; ``accounts`` are those that any arm was charged to."""
    if len(drawn(view)) < 2:
        return []
    return [_who(view), _spread(view), _counted(accounts), *no_gains(view)]


def no_gains(view: View) -> list[str]:
    """Return which arms cost more than a plain one and ended no lower, or not by what several seeds can show."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm in drawn(view) if not view.differs else ():
        base = _cheaper(arm, view)
        if base is None or not _pays(arm):
            continue
        gap = gap_between(arm, base, view.targets)
        if _loss(arm, view) >= _loss(base, view):
            kind = "No gain"
        elif len(view.seeds) > 1 and (gap is None or not gap.shown):
            kind = "No gain shown"
        else:
            continue
        found.setdefault((kind, base.name), []).append(f"{arm.name} ({words.percent(_cost(arm) / _cost(base))})")
    ends = {"No gain": "ended no lower", "No gain shown": "ended lower by no more than chance may explain"}
    return [
        f"{kind}: {words.together(names)} took more FLOPs than the plain {base} (100 %) and {ends[kind]}."
        for (kind, base), names in sorted(found.items())
    ]


def _who(view: View) -> str:
    if view.differs:
        return "These runs cannot be compared, so no front is drawn."
    names = [arm.name for arm in sorted(drawn(view), key=_cost) if arm.numbers["on_front"]]
    on = f"On it {'is' if len(names) == 1 else 'are'} {words.together(names)}."
    return f"The line is the front: for each cost, the lowest {view.loss_name} that any arm reached for no more. {on}"


def _spread(view: View) -> str:
    if view.differs or len(view.seeds) < 2:
        return "Each mark is one seed: how far luck moves it is not known." if len(view.seeds) < 2 else ""
    return "The means over seeds decide who is on it; where whiskers overlap, that may be luck."


def _counted(accounts: Sequence[str]) -> str:
    known = [f"{what} ({name})" for name, what in _BESIDE.items() if name in accounts]
    rest = [name for name in accounts if name not in _BESIDE]
    return f"The cost is the FLOPs of every account: {words.together([*rest, *known])}." if accounts else ""


def _pays(arm: Arm) -> bool:
    """Whether the arm is no plain one, or a plain one that paid for something beforehand."""
    paid = {name for run in arm.runs for name, spent in run.spent.items() if spent["flops"]}
    return not arm.numbers["baseline"] or not paid.isdisjoint(_BESIDE)


def _cheaper(arm: Arm, view: View) -> Arm | None:
    """Return the plain arm that ended lowest of those that cost less than ``arm``."""
    plain = [other for other in drawn(view) if other.numbers["baseline"] and _cost(other) < _cost(arm)]
    return min(plain, key=partial(_loss, view=view), default=None)


def _cost(arm: Arm) -> float:
    return float(arm.numbers["total_flops"]["mean"])


def _loss(arm: Arm, view: View) -> float:
    return float(arm.numbers["final"][view.metric]["mean"])
