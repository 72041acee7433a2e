"""The report's tables as plain rows; the template only lays them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from apportion.reports import figures, words
from apportion.reports.advice import losses_of, task_losses
from apportion.reports.gap import gap_between
from apportion.reports.glossary import ACCOUNTS
from apportion.reports.verdict import apart, seeds_of
from apportion.reports.view import Arm, View


@dataclass(frozen=True)
class Cell:
    """A number, its range over seeds, whether it is shown to be the best, a shade in [-1, 1], and its standard error."""

    text: str
    note: str = ""
    best: bool = False
    shade: float = 0.0
    error: str = ""


def _cell(numbers: Mapping[str, float] | None, say: Callable[[float], str], best: bool = False) -> Cell:
    return Cell(words.NONE) if numbers is None else Cell(say(numbers["mean"]), words.span(numbers, say), best)


def _is_best(arm: Arm, view: View, read: Callable[[Arm], Mapping[str, float] | None]) -> bool:
    others = [other for other in view.arms if other is not arm and read(other)]
    return bool(others) and all(apart(read(arm), read(other), seeds_of(arm, other)) for other in others)


def methods(view: View) -> list[tuple[Arm, list[Cell]]]:
    """Return a row an arm: its losses, tokens and FLOPs to the best baseline's best, FLOPs, n_eff, time."""
    rows = []
    for arm in view.arms:
        cells = []
        first = _is_first(arm, view)
        for metric in _losses(view):
            best = first and (metric == view.metric or _is_best(arm, view, partial(_ended, metric=metric)))
            cells.append(_loss_cell(_final(arm, metric), _error(arm, metric), best))
        if view.baseline is not None:
            cells += [_to_best(arm, view, account, first) for account in ("tokens_to_best_of", "flops_to_best_of")]
        cells.append(_cell(arm.numbers["total_flops"], words.flops))
        cells.append(_cell(arm.numbers["n_eff"], lambda n: f"{n:.1f}"))
        cells.append(_cell(arm.numbers["seconds"], words.duration))
        rows.append((arm, cells))
    return rows


def columns(view: View) -> list[str]:
    """Return the names of the columns of `methods`."""
    reach = ["Tokens to reach", "FLOPs to reach"] if view.baseline is not None else []
    losses = [figures.METRICS[metric] for metric in _losses(view)]
    return [*losses, *reach, "FLOPs, all accounts", "n_eff at the end", "Time"]


def _losses(view: View) -> tuple[str, ...]:
    return ("target", "others", "worst") if view.targets else ("macro", "worst", "objective")


def _ended(arm: Arm, metric: str) -> Mapping[str, float] | None:
    numbers: Mapping[str, float] | None = arm.numbers["final"][metric]
    return numbers


def _final(arm: Arm, metric: str) -> Mapping[str, float] | None:
    """Return the numbers over finished runs, or the last validation of an arm that has none."""
    if arm.finished:
        return _ended(arm, metric)
    last = arm.shown.final.get(metric)
    return None if last is None else {"mean": last, "min": last, "max": last}


def _is_first(arm: Arm, view: View) -> bool:
    """Return whether the arm is shown to have ended below every other arm in the loss that arms are judged by."""
    others = [other for other in view.arms if other is not arm]
    ended = {one: numbers["mean"] for one in view.arms if (numbers := _ended(one, view.metric))}
    # Only the one that ended lowest can be shown to have: the others need not be compared.
    if view.differs or not others or arm not in ended or ended[arm] > min(ended.values()):
        return False
    gaps = (gap_between(arm, other, view.targets) for other in others)
    return all(gap is not None and gap.estimate.mean > 0 and gap.shown for gap in gaps)


def _error(arm: Arm, metric: str) -> float | None:
    error: float | None = arm.numbers["se"][metric] if arm.finished else None
    return error


def _loss_cell(numbers: Mapping[str, float] | None, error: float | None, best: bool) -> Cell:
    cell = _cell(numbers, words.loss, best)
    return cell if error is None else replace(cell, error=words.loss(error))


def _to_best(arm: Arm, view: View, account: str, first: bool) -> Cell:
    base = view.baseline
    if base is None or arm is base:
        return Cell("100 %", "its own")
    numbers = arm.numbers[account][base.name][view.metric]
    if numbers is None:
        return Cell("never" if arm.finished else words.NONE)
    if numbers["reached"] < numbers["of"]:
        return Cell(words.percent(numbers["mean"]), f"in {numbers['reached']} of {numbers['of']} seeds")
    full = {"mean": 1.0, "min": 1.0, "max": 1.0}
    best = first and _is_best(
        arm, view, lambda other: full if other is base else other.numbers[account][base.name][view.metric]
    )
    return _cell(numbers, words.percent, best)


Heat = list[tuple[str, int, int | None, list[Cell]]]


def heat(view: View) -> tuple[str, Heat, Heat]:
    """Return the reference arm's name, a row a target and a row a task that is none, the largest task first.

    A row has the name, its size, its validation examples (None where the runs do not say) and, an arm each, its final loss,
    shaded against the reference arm's.
    """
    targets = _heat(view, {name: view.sizes.get(name, 0) for name in view.targets})
    tasks = _heat(view, {task: size for task, size in view.sizes.items() if task not in view.targets})
    return (view.baseline.name if view.baseline else ""), targets, tasks


def _heat(view: View, sizes: Mapping[str, int]) -> Heat:
    reference = view.baseline
    rows = []
    for task, size in sizes.items():
        theirs = task_losses(reference, task) if reference else []
        cells = []
        for arm in view.arms:
            ours = task_losses(arm, task) or _last(arm, task)
            cell = _heat_cell(ours, theirs, arm is reference)
            cells.append(replace(cell, error=_task_error(arm, task)))
        counts = [(run.final.get("examples") or {}).get(task) for run in view.runs]
        rows.append((task, size, next((n for n in counts if n is not None), None), cells))
    return rows


def _task_error(arm: Arm, task: str) -> str:
    errors = [(run.final.get("se") or {}).get(task) for run in arm.finished]
    known = [error for error in errors if error is not None]
    return words.loss(fmean(known)) if known and len(known) == len(errors) else ""


def _last(arm: Arm, task: str) -> list[float]:
    loss = losses_of(arm.shown).get(task)
    return [] if loss is None else [loss]


def _heat_cell(ours: list[float], theirs: list[float], is_reference: bool) -> Cell:
    if not ours:
        return Cell(words.NONE)
    if is_reference or not theirs:
        return Cell(words.loss(fmean(ours)))
    gap = fmean(ours) - fmean(theirs)
    # 15 % more or less loss than the reference is full colour.
    shade = max(-1.0, min(1.0, gap / (0.15 * abs(fmean(theirs)) or 1.0)))
    return Cell(words.loss(fmean(ours)), words.signed(gap), shade=shade)


KINDS = ("thinking", "answer", "inserted")
"""Generated tokens by kind."""


def ledger(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return an arm's accounts, each the mean over its runs, and their widths in the bar (the dearest arm is 100)."""
    # All accounts, `evaluate` too, which no budget pays.
    totals = {
        arm.name: fmean(sum(spent["flops"] for spent in run.spent.values()) for run in _counted(arm)) for arm in arms
    }
    most = max(totals.values(), default=0.0) or 1.0
    found = []
    for arm in arms:
        runs = _counted(arm)
        total = totals[arm.name]
        names = [name for name in _accounts(arm) if any(name in run.spent for run in runs)]
        rows = []
        for name in names:
            means = {
                key: fmean(run.spent.get(name, {}).get(key, 0) for run in runs)
                for key in ("supervised", "processed", "padded", "flops", *KINDS)
            }
            share = means["flops"] / total if total else 0.0
            rows.append({"name": name, **means, "share": share, "width": 100 * means["flops"] / most})
        found.append({"arm": arm, "rows": rows, "total": total})
    return found


def _counted(arm: Arm) -> list[Any]:
    return arm.finished or [arm.shown]


def generated(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether any account of `ledger` has generated tokens, whose columns are left out otherwise."""
    return any(row[kind] for entry in entries for row in entry["rows"] for kind in KINDS)


def _accounts(arm: Arm) -> list[str]:
    held = {name for run in arm.runs for name, spent in run.spent.items() if spent["padded"] or spent["flops"]}
    return [name for name in ACCOUNTS if name in held] + sorted(held - set(ACCOUNTS))


def draws(view: View) -> list[tuple[str, int, list[Cell]]]:
    """Return a row a task, largest first: for each arm the supervised tokens drawn and the epochs that makes."""
    rows = []
    for task, size in view.sizes.items():
        cells = []
        for arm in view.arms:
            drawn = (arm.shown.mixture or {"tasks": {}})["tasks"].get(task)
            cells.append(
                Cell(words.count(drawn["supervised"]), f"{words.epochs(drawn['epochs'])} ep.")
                if drawn
                else Cell(words.NONE)
            )
        rows.append((task, size, cells))
    return rows
