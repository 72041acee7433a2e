"""What went wrong or looks as if it did, and what to change: read from the histories, one rule a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

from apportion.reports import words
from apportion.reports.view import Arm, View
from apportion.runs import RunRecord
from apportion.runs.curves import curve, tokens_spent
from apportion.runs.schema import MethodRecord

_ALIKE = 0.999  # effective sample size of weights that differ by 3 % or less


@dataclass(frozen=True)
class Advice:
    """``arm``: whom it concerns, "" for all; ``seen``: what the numbers show; ``todo``: what to change."""

    arm: str
    colour: str
    seen: str
    todo: str


def advise(view: View) -> list[Advice]:
    """Return everything worth warning of, the same thing once for all seeds of an arm."""
    found = [Advice("", "", seen, todo) for seen, todo in _unequal(view)]
    rules = (
        _unfinished,
        _not_validated,
        _diverged,
        _collapsed,
        _flat,
        _alike,
        _overfit,
        _plateau,
        _worse_tasks,
        _repeated,
    )
    for arm in view.arms:
        found += [Advice(arm.name, arm.colour, seen, todo) for rule in rules for seen, todo in rule(arm, view)]
    return [*found, *_padding(view)]


Found = Iterator[tuple[str, str]]


def _some_seeds(arm: Arm, test: Callable[[RunRecord], bool]) -> str:
    """Return "" if no run passes the test, else in which seeds it does."""
    hits = [run.seed for run in arm.runs if test(run)]
    if not hits or len(arm.runs) == 1:
        return "yes" if hits else ""
    return (
        "in every seed" if len(hits) == len(arm.runs) else f"in seed {words.listing([str(seed) for seed in hits], 9)}"
    )


def _in(seeds: str) -> str:
    return "" if seeds == "yes" else f" {seeds}"


def _todo(arm: Arm, family: str, sign: str, plain: str) -> str:
    """Return what the arm's method advises where ``sign`` is seen; ``plain`` words, without keys, where it says nothing."""
    return next((said for run in arm.runs if (said := _of(run, family)["advice"].get(sign))), plain)


def _of(run: RunRecord, family: str) -> MethodRecord:
    return run.methods.get(family) or {"type": "", "plain": True, "advice": {}}


def _unequal(view: View) -> Found:
    if view.differs:
        yield f"The runs differ in {words.together(view.differs)}.", "Run them again alike before comparing them."


def _unfinished(arm: Arm, view: View) -> Found:
    for run in arm.runs:
        if not run.finished:
            limit = (
                run.ledger["budget"]["limit"] if run.ledger and run.ledger["budget"]["unit"] == "supervised" else None
            )
            part = f", {words.percent(run.supervised_tokens / limit)} of its budget spent" if limit else ""
            yield (
                f"Seed {run.seed} has not finished{part}; its numbers are left out of every mean.",
                "Run the same recipe into the same folder: it resumes.",
            )


def _not_validated(arm: Arm, view: View) -> Found:
    seeds = _some_seeds(arm, lambda run: run.finished and not curve(run.history, "macro"))
    if seeds:
        yield f"The run was never validated{_in(seeds)}.", "Set validation.every, or there is nothing to compare."


def _diverged(arm: Arm, view: View) -> Found:
    def lost(run: RunRecord) -> bool:
        return any("loss" in record and record["loss"] is None for record in run.history)

    if seeds := _some_seeds(arm, lost):
        yield (
            f"The training loss stopped being a number{_in(seeds)}.",
            "Lower the learning rate, or train in fp32 or bf16.",
        )


def _learns(run: RunRecord) -> bool:
    return not _of(run, "mixture")["plain"]


def _progress(run: RunRecord) -> list[tuple[float, float]]:
    """Return (share of the tokens spent, n_eff) over the run."""
    end = tokens_spent(run.history[-1]) if run.history else 0
    known = [(tokens_spent(record) / end, record.get("n_eff")) for record in run.history] if end else []
    return [(part, n) for part, n in known if n is not None]


def _collapsed(arm: Arm, view: View) -> Found:
    def early(run: RunRecord) -> tuple[float, float] | None:
        points = _progress(run) if _learns(run) else []
        low = max(1.5, 0.2 * len(view.sizes))
        return next(((part, n) for part, n in points if part <= 0.5 and n < low and n < 0.5 * points[0][1]), None)

    hits = [hit for hit in map(early, arm.runs) if hit]
    if hits:
        part, n = min(hits)
        when = f"at {words.percent(part)} of the tokens"
        yield (
            f"The mixture narrowed early: n_eff fell to {n:.1f} of {words.several(len(view.sizes), 'task')} {when}.",
            _todo(arm, "mixture", "narrowed", "See whether the other tasks can spare the draws."),
        )


def _flat(arm: Arm, view: View) -> Found:
    # One that says what to do of other signs and not of this one is meant to stand still, settled before training.
    settled = any((said := _of(run, "mixture")["advice"]) and "still" not in said for run in arm.runs)
    if settled:
        return
    seeds = _some_seeds(arm, lambda run: _learns(run) and run.moved is not None and run.moved < 0.03)
    if seeds:
        yield (
            f"The mixture hardly moved{_in(seeds)}: less than 3 % of the draws changed task.",
            _todo(arm, "mixture", "still", "As it is, this is a plain baseline at a higher price."),
        )


def _alike(arm: Arm, view: View) -> Found:
    sizes = [w["ess"] for run in arm.runs for record in run.history if (w := record.get("weights")) and w["ess"]]
    if sizes and fmean(sizes) > _ALIKE:
        yield (
            f"The weights hardly told examples apart: their effective sample size was {100 * fmean(sizes):.2f} %.",
            _todo(arm, "weights", "alike", "As it is, this is training without weights."),
        )


def _overfit(arm: Arm, view: View) -> Found:
    def rise(run: RunRecord) -> float:
        points = [loss for _, loss in curve(run.history, view.metric)]
        return points[-1] / min(points) - 1 if points else 0.0

    if seeds := _some_seeds(arm, lambda run: rise(run) > 0.01):
        rose = words.percent(max(map(rise, arm.runs)))
        yield (
            f"Validation rose again after its best, by up to {rose}{_in(seeds)}: the model overfits.",
            "Spend less, lower the learning rate, or set max_epochs.",
        )


def _plateau(arm: Arm, view: View) -> Found:
    base = view.baseline
    ours = arm.numbers["final"][view.metric]
    if base is None or base is arm or not ours or not any(map(_learns, arm.runs)):
        return
    late = [
        [loss for spent, loss in points if spent >= 0.7 * points[-1][0]]
        for run in arm.finished
        if (points := curve(run.history, view.metric))
    ]
    stuck = bool(late) and all(losses[0] - min(losses) < 0.005 * losses[0] for losses in late)
    if stuck and ours["min"] > base.numbers["best"][view.metric]["max"]:
        yield (
            f"Validation settled above {base.name}’s best and stopped falling.",
            "The mixture may swing too much. " + _todo(arm, "mixture", "swings", "Let it move in smaller steps."),
        )


def _worse_tasks(arm: Arm, view: View) -> Found:
    base = view.baseline
    if base is None or arm.numbers["baseline"]:
        return
    worse = []
    # Where targets are named, the other tasks are not what the run is for.
    for task in view.targets or view.sizes:
        ours, theirs = task_losses(arm, task), task_losses(base, task)
        if ours and theirs and min(ours) > max(theirs) and fmean(ours) > 1.02 * fmean(theirs):
            worse.append((fmean(ours) - fmean(theirs), task))
    if worse:
        names = words.listing([f"{task} (+{words.loss(gap)})" for gap, task in sorted(worse, reverse=True)], 3)
        which = words.several(len(worse), "target" if view.targets else "task")
        yield (
            f"{which} ended worse than under {base.name}: {names}.",
            _todo(arm, "mixture", "behind", "If they matter, give them a larger share."),
        )


def task_losses(arm: Arm, task: str) -> list[float]:
    """Return the task's, or target's, final losses over the arm's finished runs."""
    found = [losses_of(run).get(task) for run in arm.finished]
    return [loss for loss in found if loss is not None]


def losses_of(run: RunRecord) -> dict[str, float | None]:
    """Return the last loss of each task and each target."""
    return {**(run.final.get("validation") or {}), **(run.final.get("targets") or {})}


def _repeated(arm: Arm, view: View) -> Found:
    epochs: dict[str, float] = {}
    for run in arm.runs:
        for task, drawn in (run.mixture["tasks"] if run.mixture else {}).items():
            epochs[task] = max(epochs.get(task, 0.0), drawn["epochs"])
    often = sorted(((n, task) for task, n in epochs.items() if n > 4), reverse=True)
    if often:
        names = words.listing([f"{task} ({n:.1f})" for n, task in often], 3)
        yield (
            f"{words.several(len(often), 'task')} repeated more than 4 epochs: {names}.",
            "Set max_epochs to cap how often one example is seen.",
        )


def _padding(view: View) -> Iterator[Advice]:
    """Say it once: arms share their batch size and their data."""
    shares: list[tuple[float, Arm]] = []
    for arm in view.arms:
        trained = [run.spent["train"] for run in arm.runs if "train" in run.spent]
        padded, processed = sum(s["padded"] for s in trained), sum(s["processed"] for s in trained)
        if padded and 1 - processed / padded > 0.3:
            shares.append((1 - processed / padded, arm))
    if not shares:
        return
    (least, _), (most, worst) = (pick(shares, key=lambda share: share[0]) for pick in (min, max))
    several = len(shares) > 1 and words.percent(least) != words.percent(most)
    said = f"{words.percent(least)} to {words.percent(most)}" if several else words.percent(most)
    alone = len(shares) == 1
    yield Advice(
        worst.name if alone else "",
        worst.colour if alone else "",
        f"{said} of the positions computed in training were padding{f' in {len(shares)} arms' if len(shares) > 1 else ''}.",
        "Examples of like length share a micro-batch: take smaller ones and accumulate more, or lower max_length.",
    )
