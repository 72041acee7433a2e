"""Whether one arm ended below another: the gap in macro or target loss, its uncertainty, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from apportion.reports.estimates import Estimate, Example, Part, Sums, estimate
from apportion.reports.view import Arm
from apportion.runs import RunRecord

_HANDFUL, _HANDFUL_SHARE = 5, 0.05  # as many of the examples that count most are left out: five, or 5 % if that is less


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


def _turns(less: Estimate, whole: Estimate) -> bool:
    return less.mean * whole.mean <= 0 or not less.beyond


def _alone(parts: Sequence[Part], whole: Estimate) -> str:
    """Return the task that decides, of several the one that makes most of the gap; see `Gap`."""
    ordered = sorted(parts, key=lambda part: part.gap * whole.mean, reverse=True)
    if whole.beyond and len(parts) > 1:
        sums = Sums.of(parts)
        return next((part.task for part in ordered if _turns(sums.without(part).estimate(), whole)), "")
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
    if not whole.beyond or not out or not rest or not _turns(estimate(rest), whole):
        return ()
    return tuple(parts[place].task for place in out)
