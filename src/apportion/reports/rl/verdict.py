"""What a page on reinforcement opens with: at which budgets more is right than before, what that took, or which arm won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from apportion.reports import words
from apportion.reports.measured import Measured, Point, used
from apportion.reports.rl.arms import RlView, after, areas, areas_before, before, reached, told
from apportion.reports.traced import traced
from apportion.reports.verdict import Verdict, apart, seeds_of
from apportion.reports.view import Arm
from apportion.runs import RunRecord
from apportion.runs.curves import generated_tokens

ROSE, FELL, ALIKE, UNKNOWN = "rose", "fell", "alike", "unknown"
_OVERLAP = "the 95 % intervals before and after overlap"


def verdict(view: RlView) -> Verdict:
    """Work out what the numbers say, and no more than that.

    Of one run an accuracy rose where its 95 % interval lies wholly above the one before, of several seeds the area where its
    range does. Arms are told apart by the ranges of their areas over two seeds or more.
    """
    if len(view.runs) == 1:
        return _of_run(view.arms[0])
    if view.differs:
        differs = [traced(what, *(arm.name for arm in view.arms)) for what in view.differs]
        return Verdict("unequal", f"No verdict: the runs differ in {words.together(differs)}.", _lines(view))
    ended = [arm for arm in view.arms if areas(arm.finished)]
    if len(view.arms) == 1:
        return _of_seeds(view)
    if len(ended) < 2:
        return Verdict("pending", "No verdict yet: fewer than two arms have finished and were measured.", _lines(view))
    first, second = sorted(ended, key=lambda arm: -_area(arm)["mean"])[:2]
    ends = f"{first.name} {_said(first)}, {second.name} {_said(second)}"
    if apart(_area(second), _area(first), seeds_of(first, second)):
        head = f"{first.name} has the largest area under accuracy against thinking tokens used: {ends}."
        return Verdict("gain", head, _lines(view))
    why = "with one seed luck is not known" if seeds_of(first, second) < 2 else "their ranges over seeds overlap"
    return Verdict("none", f"No arm is shown to be better by the area under accuracy: {ends}; {why}.", _lines(view))


def changed(first: Point, last: Point) -> str:
    """Return whether accuracy `ROSE` or `FELL`, is `ALIKE` as far as 95 % intervals can tell, or `UNKNOWN` without them."""
    if first.span is None or last.span is None:
        return UNKNOWN
    return ROSE if last.span[0] > first.span[1] else FELL if last.span[1] < first.span[0] else ALIKE


def changes(run: RunRecord) -> list[tuple[Point, Point]]:
    """Return each budget's answers before and after, no limit last."""
    first, last = before(run), after(run)
    if first is None or last is None:
        return []
    return [(point, then) for point in first.points if (then := last.at(point.budget))]


def toward(run: RunRecord) -> str:
    """Return the budgets that a run was trained toward, in words."""
    budgets = run.rl.get("budgets") or []
    if not budgets:
        return "thinking budgets that its recipe does not say"
    said = words.together([f"{budget:,}" for budget in budgets])
    return f"{'a thinking budget' if len(budgets) == 1 else 'thinking budgets'} of {said} tokens"


def generated(run: RunRecord) -> int:
    """Return the tokens that were generated to train on."""
    said = (run.summary or {}).get("generated")
    return generated_tokens(run.spent) if said is None else int(said)


def steps(run: RunRecord) -> int:
    """Return the optimizer steps that were made."""
    said = (run.summary or {}).get("steps")
    return int(said) if said is not None else run.history[-1]["step"] if run.history else 0


def budget_of(run: RunRecord) -> Mapping[str, Any]:
    """Return ``unit`` and ``limit`` of what might be spent; nothing where no file says."""
    return run.ledger["budget"] if run.ledger else (run.summary or {}).get("budget") or {}


def _of_run(arm: Arm) -> Verdict:
    run = arm.shown
    pairs = changes(run)
    took = [_took(arm, run), *_pairs(arm, pairs), *_areas(arm, run)]
    if not run.finished:
        return Verdict("pending", f"{arm.name}, trained toward {toward(run)}, has not finished.", took)
    if not pairs:
        head = f"{arm.name} was trained toward {toward(run)}, and its answers before and after were not both measured."
        return Verdict("single", head, took)
    found = {
        how: [last for first, last in pairs if changed(first, last) == how] for how in (ROSE, FELL, ALIKE, UNKNOWN)
    }
    head = f"{arm.name}, trained toward {toward(run)}, {_heading(found)}."
    some = found[ALIKE] and (found[ROSE] or found[FELL])
    rest = [f"No gain is shown {_at(found[ALIKE])}: {_OVERLAP}."] if some else []
    return Verdict("gain" if found[ROSE] and not found[FELL] else "none", head, [*rest, *took])


def _heading(found: Mapping[str, Sequence[Point]]) -> str:
    known = sum(len(points) for how, points in found.items() if how != UNKNOWN)
    if not known:
        return "was measured without standard errors, so how far luck moves its answers is not known"
    if len(found[ALIKE]) == known:
        return f"shows no gain: at every budget {_OVERLAP}"
    return " and ".join(
        f"gets {how} right {'at every budget' if len(found[way]) == known else _at(found[way])}"
        for way, how in ((ROSE, "more"), (FELL, "fewer"))
        if found[way]
    )


def _at(points: Sequence[Point]) -> str:
    limited = [f"{point.budget:,}" for point in points if point.budget is not None]
    said = [f"at {words.together(limited)} tokens"] if limited else []
    return words.together([*said, *["without a limit"] * (len(limited) < len(points))])


def _took(arm: Arm, run: RunRecord) -> str:
    budget = budget_of(run)
    tokens = traced(words.count(generated(run)), arm.name)
    of = f" of {words.count(budget['limit'])}" if budget.get("unit") == "generated" else ""
    spent = f"It generated {tokens}{of} tokens in {words.several(steps(run), 'step')}"
    return f"{spent}, and took {traced(words.flops(run.total_flops), arm.name)} FLOPs in all."


def _pairs(arm: Arm, pairs: Sequence[tuple[Point, Point]]) -> list[str]:
    """Return accuracy and tokens before and after at each budget."""
    said = [
        f"{'without a limit' if first.budget is None else f'at {first.budget:,}'} "
        f"{traced(f'{words.loss(first.score)} → {words.loss(last.score)}', arm.name)} "
        f"with {traced(f'{used(first.used)} → {used(last.used)}', arm.name)} tokens"
        for first, last in pairs
    ]
    return [f"Right answers, and thinking tokens used: {'; '.join(said)}."] if said else []


def _areas(arm: Arm, run: RunRecord) -> list[str]:
    first, last = (_known(line) for line in (before(run), after(run)))
    if first is None or last is None:
        return []
    moved = traced(f"{words.loss(first)} → {words.loss(last)}", arm.name)
    return [f"The area under accuracy against thinking tokens used: {moved}."]


def _of_seeds(view: RlView) -> Verdict:
    arm = view.arms[0]
    firsts = areas_before(arm.finished)
    ended = areas(arm.finished)
    if ended is None or firsts is None:
        head = f"{arm.name}, trained toward {toward(arm.shown)}, has no finished run with answers."
        return Verdict("pending", head, _lines(view))
    moved = traced(f"{words.mean(firsts, words.loss)} → {words.mean(ended, words.loss)}", arm.name)
    rose = apart(firsts, ended, len(arm.finished))
    shown = "" if rose else ", which is no gain that is shown"
    head = f"{arm.name}, trained toward {toward(arm.shown)}, {words.several(len(arm.finished), 'seed')}"
    return Verdict("gain" if rose else "none", f"{head}: area {moved}{shown}.", _lines(view))


def _lines(view: RlView) -> list[str]:
    """Return a sentence an arm: what its runs generated, their area, and the answers that were thought about longest."""
    said = []
    for arm in view.arms:
        first, line, firsts = view.start, reached(arm), areas_before(told(arm))
        if line is None:
            continue
        tokens = traced(words.count(fmean(map(generated, told(arm)))), arm.name)
        area = words.loss(line.area) if firsts is None else f"{words.loss(firsts['mean'])} → {words.loss(line.area)}"
        last = line.points[-1]
        ended = f"{traced(f'{words.loss(last.score)} right with {used(last.used)} thinking tokens', arm.name)}"
        began = first.at(last.budget) if first else None
        since = f", before {words.loss(began.score)} with {used(began.used)}" if began else ""
        said.append(
            f"{arm.name}, {tokens} tokens generated a run: area {traced(area, arm.name)}; {_at([last])} {ended}{since}."
        )
    return said


def _known(line: Measured | None) -> float | None:
    return None if line is None else line.area


def _area(arm: Arm) -> Mapping[str, float]:
    return areas(arm.finished) or {}


def _said(arm: Arm) -> str:
    return traced(words.mean(_area(arm), words.loss), arm.name)
