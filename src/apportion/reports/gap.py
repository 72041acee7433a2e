"""Whether one arm ended below another: the gap in macro or target loss, its uncertainty, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from apportion.reports.view import Arm
from apportion.runs import RunRecord
from apportion.runs.uncertainty import ratio_variance, variance

_HANDFUL, _HANDFUL_SHARE = 5, 0.05  # as many of the examples that count most are left out: five, or 5 % if that is less
# Two-sided 95 % points of Student's t, by degrees of freedom from 1.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Example(NamedTuple):
    """A validation example: by seed the summed loss under the other arm less that under ours; its supervised tokens."""

    by_seed: tuple[float, ...]
    tokens: int

    @property
    def mean(self) -> float:
        """Over seeds."""
        return sum(self.by_seed) / len(self.by_seed)


@dataclass(frozen=True)
class Part:
    """A task's part in the gap: by seed the other arm's loss less ours, and its examples where the runs kept them.

    ``weight`` is a target's importance; tasks count alike.
    """

    task: str
    by_seed: tuple[float, ...]
    examples: tuple[Example, ...] = ()
    weight: float = 1.0

    @cached_property
    def gap(self) -> float:
        """The mean over seeds."""
        return fmean(self.by_seed)

    @cached_property
    def variance(self) -> float | None:
        """Of the mean over seeds, over draws of the examples; None for one example or none."""
        return ratio_variance([e.mean for e in self.examples], [e.tokens for e in self.examples])

    def without(self, left_out: set[int]) -> Part | None:
        """Return the part without the examples of these indices, None if no other is left."""
        kept = tuple(e for i, e in enumerate(self.examples) if i not in left_out)
        if not kept:
            return None
        total = sum(e.tokens for e in kept)
        by_seed = tuple(sum(e.by_seed[s] for e in kept) / total for s in range(len(self.by_seed)))
        return Part(self.task, by_seed, kept, self.weight)


@dataclass(frozen=True)
class Estimate:
    """A mean gap, its standard error and the degrees of freedom that this has."""

    mean: float
    error: float
    freedom: float

    @property
    def beyond(self) -> bool:
        """Whether the gap is larger than chance explains, at 5 % on both sides."""
        return abs(self.mean) > threshold(self.freedom) * self.error


@dataclass(frozen=True)
class Gap:
    """The macro or target loss of another arm less ours (positive where ours is lower), and what it rests on.

    ``alone`` is the task without which a gap beyond chance turns its sign or is within chance; of a gap that is within
    chance, the one that makes more than half of all tasks' gaps. ``handful`` are the tasks of the few examples that count
    most, where a gap beyond chance turns likewise without them. Each is empty if nothing turns. Targets are what one wants,
    not a sample of it: one of them may make the whole gap, so that ``alone`` is empty there.
    """

    parts: tuple[Part, ...]
    estimate: Estimate
    targets: bool = False

    @cached_property
    def alone(self) -> str:
        """The task that decides alone, empty where none does."""
        return "" if self.targets else _alone(self.parts, self.estimate)

    @cached_property
    def handful(self) -> tuple[str, ...]:
        """The tasks of the few examples that decide, empty where they do not."""
        return _handful(self.parts, self.estimate)

    @property
    def seeds(self) -> int:
        """How many seeds both arms have."""
        return len(self.parts[0].by_seed)

    @property
    def examples(self) -> int:
        """How many validation examples were compared, 0 where the runs did not keep them."""
        return sum(len(part.examples) for part in self.parts)

    @property
    def shown(self) -> bool:
        """Whether the gap may be called one: over several seeds, beyond chance, and not by one task or a handful."""
        return self.seeds > 1 and self.estimate.beyond and not self.alone and not self.handful

    def share(self, part: Part) -> float:
        """Return the task's share of the gap; all add up to one, those that pull the other way below zero."""
        total = sum(other.weight for other in self.parts)
        return part.weight * part.gap / (total * self.estimate.mean) if self.estimate.mean else 0.0

    @property
    def makers(self) -> list[Part]:
        """The tasks that make the gap, the largest share first."""
        return sorted(self.parts, key=self.share, reverse=True)


def gap_between(ours: Arm, other: Arm, importance: Mapping[str, float]) -> Gap | None:
    """Return how far ``ours`` ended below ``other``, paired by seed, task and example; None without a seed in common.

    With g_j the gap of task j (its token-weighted mean loss under ``other`` less that under ``ours``) and
    d = sum_j w_j g_j, over S seeds:

        var(d) = var_s(d_s) / S + sum_j w_j^2 var_j

    The weights w_j add up to one. They are those of the targets where ``importance`` names some; else all tasks count
    alike, 1 / T.

    The first part is the spread of the seeds' own gaps. The second is that of the examples, by `ratio_variance` of each
    example's difference averaged over seeds; all seeds see the same examples, so that it does not shrink with S. A task
    with one example has no spread to measure: it counts with its whole gap, or with what an example of the other tasks
    typically moves, whichever is more. d is beyond chance where |d| > t sqrt(var(d)), t being Student's 95 % point at
    Welch and Satterthwaite's degrees of freedom, var(d)^2 / (sum of each part's square by its own degrees).

    One seed has no first part: its gap is never called shown. Runs of older versions kept no examples: they have no second.
    """
    key = (other.name, *importance.items())
    if key not in ours.gaps:
        parts = parts_between(ours, other, importance)
        ours.gaps[key] = judged(parts, targets=bool(importance)) if parts else None
    return ours.gaps[key]


def judged(parts: Sequence[Part], targets: bool = False) -> Gap:
    """Return the gap of these tasks, or targets, and what it rests on; see `gap_between`."""
    return Gap(tuple(parts), estimate(parts), targets)


def parts_between(ours: Arm, other: Arm, importance: Mapping[str, float]) -> list[Part]:
    """Return what each task, or target where ``importance`` names some, makes of the gap of `gap_between`."""
    measured = "targets" if importance else "validation"
    partners = {run.seed: run for run in other.finished}
    pairs = [(run, partners[run.seed]) for run in ours.finished if run.seed in partners]
    losses = [(mine.final.get(measured) or {}, theirs.final.get(measured) or {}) for mine, theirs in pairs]
    pairs = [pair for pair, (mine, theirs) in zip(pairs, losses, strict=True) if mine and theirs]
    tasks = [task for task in (losses[0][0] if pairs else {}) if all(_known(task, *found) for found in losses)]
    found = []
    for task in tasks:
        by_seed = tuple(theirs.final[measured][task] - mine.final[measured][task] for mine, theirs in pairs)
        found.append(Part(task, by_seed, _examples(task, pairs), importance.get(task, 1.0)))
    return found


def _known(task: str, mine: dict[str, float | None], theirs: dict[str, float | None]) -> bool:
    return mine.get(task) is not None and theirs.get(task) is not None


def _examples(task: str, pairs: Sequence[tuple[RunRecord, RunRecord]]) -> tuple[Example, ...]:
    kept = [(a.validation["tasks"], b.validation["tasks"]) for a, b in pairs if a.validation and b.validation]
    if len(kept) < len(pairs) or any(task not in a or task not in b for a, b in kept):
        return ()
    gaps = [[theirs - mine for mine, theirs in zip(a[task]["nll"], b[task]["nll"], strict=True)] for a, b in kept]
    tokens = kept[0][0][task]["supervised"]
    return tuple(map(Example, zip(*gaps, strict=True), tokens))


def estimate(parts: Sequence[Part]) -> Estimate:
    """Return the mean gap of these tasks with its standard error and degrees of freedom; see `gap_between`."""
    weights = [part.weight for part in parts]
    by_seed = [fmean(gaps, weights) for gaps in zip(*(part.by_seed for part in parts), strict=True)]
    pieces = [(variance(by_seed) / len(by_seed), len(by_seed) - 1)] if len(by_seed) > 1 else []
    told = {part.task: spread for part in parts if (spread := part.variance) is not None}
    typical = fmean(told[part.task] * len(part.examples) for part in parts if part.task in told) if told else 0.0
    for part in parts:
        if part.examples:
            spread = told.get(part.task, max(part.gap**2, typical))
            pieces.append((spread * (part.weight / sum(weights)) ** 2, max(len(part.examples) - 1, 1)))
    total = sum(spread for spread, _ in pieces)
    freedom = total**2 / sum(spread**2 / degrees for spread, degrees in pieces) if total else math.inf
    return Estimate(fmean(by_seed), math.sqrt(total), freedom)


def threshold(freedom: float) -> float:
    """Return Student's two-sided 95 % point, to three digits; for broken degrees below 10 that of the whole number below."""
    if freedom < len(_T) + 1:
        return _T[max(1, int(freedom)) - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _turns(rest: Sequence[Part], whole: Estimate) -> bool:
    less = estimate(rest)
    return less.mean * whole.mean <= 0 or not less.beyond


def _alone(parts: Sequence[Part], whole: Estimate) -> str:
    """Return the task that decides, of several the one that makes most of the gap; see `Gap`."""
    ordered = sorted(parts, key=lambda part: part.gap * whole.mean, reverse=True)
    if whole.beyond and len(parts) > 1:
        return next((part.task for part in ordered if _turns([p for p in parts if p is not part], whole)), "")
    most = ordered[0].gap * math.copysign(1.0, whole.mean)
    return ordered[0].task if len(parts) > 2 and most > 0.5 * sum(abs(part.gap) for part in parts) else ""


def _handful(parts: Sequence[Part], whole: Estimate) -> tuple[str, ...]:
    """Return the tasks of the examples that count most, if leaving these out turns the sign or the verdict."""
    counted = []
    for place, part in enumerate(parts):
        tokens = sum(e.tokens for e in part.examples)
        scale = part.weight / tokens / (whole.mean or 1.0) if tokens else 0.0
        counted += [(e.mean * scale, place, i) for i, e in enumerate(part.examples)]
    most = sorted(counted, reverse=True)[: max(1, min(_HANDFUL, int(_HANDFUL_SHARE * len(counted))))]
    out: dict[int, set[int]] = {}
    for _, place, i in most:
        out.setdefault(place, set()).add(i)
    rest = [p for place, part in enumerate(parts) if (p := part.without(out[place]) if place in out else part)]
    if not whole.beyond or not out or not rest or not _turns(rest, whole):
        return ()
    return tuple(parts[place].task for place in out)
