"""How far a mean gap over tasks may be off: over the examples of each, and over seeds; see `gap_between`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import sub
from statistics import fmean
from typing import NamedTuple

from apportion.runs.uncertainty import ratio_variance, variance

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


class Sums(NamedTuple):
    """What an estimate is made of, as sums over parts, so that one can be left out without adding up all others.

    ``numbers`` are, with weights w_j and variances v_j over n_j examples: sum w_j, sum w_j^2 v_j, the sum of (w_j^2 v_j)^2
    by degrees of freedom, sum v_j n_j, how many parts have a variance, and sum w_j g_js for each seed s. ``singles`` has
    (w_j, g_j) of each part with one example.
    """

    numbers: tuple[float, ...]
    singles: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Sums:
        """Add up parts."""
        numbers = tuple(map(sum, zip(*map(_numbers, parts), strict=True)))
        return cls(numbers, tuple((part.weight, part.gap) for part in parts if _is_single(part)))

    def without(self, part: Part) -> Sums:
        """Return the sums over the other parts."""
        singles = list(self.singles)
        if _is_single(part):
            singles.remove((part.weight, part.gap))
        return Sums(tuple(map(sub, self.numbers, _numbers(part))), tuple(singles))

    def estimate(self) -> Estimate:
        """Return the mean gap, its standard error and degrees of freedom; see `gap_between`."""
        weight, spread, squares, moves, told, *weighted = self.numbers
        typical = moves / told if told else 0.0
        alone = [w**2 * max(gap**2, typical) for w, gap in self.singles]
        by_seed = [gap / weight for gap in weighted]
        pieces = [(variance(by_seed) / len(by_seed), len(by_seed) - 1)] if len(by_seed) > 1 else []
        total = max(0.0, spread + sum(alone)) / weight**2 + sum(piece for piece, _ in pieces)
        below = (squares + sum(piece**2 for piece in alone)) / weight**4
        below += sum(piece**2 / degrees for piece, degrees in pieces)
        return Estimate(fmean(by_seed), math.sqrt(total), total**2 / below if total and below else math.inf)


def _is_single(part: Part) -> bool:
    return bool(part.examples) and part.variance is None


def _numbers(part: Part) -> tuple[float, ...]:
    by_seed = [part.weight * gap for gap in part.by_seed]
    if part.variance is None:
        return (part.weight, 0.0, 0.0, 0.0, 0.0, *by_seed)
    n, spread = len(part.examples), part.weight**2 * part.variance
    return (part.weight, spread, spread**2 / (n - 1), part.variance * n, 1.0, *by_seed)


def estimate(parts: Sequence[Part]) -> Estimate:
    """Return the mean gap of these tasks with its standard error and degrees of freedom; see `gap_between`."""
    return Sums.of(parts).estimate()


def threshold(freedom: float) -> float:
    """Return Student's two-sided 95 % point, to three digits; for broken degrees below 10 that of the whole number below."""
    if freedom < len(_T) + 1:
        return _T[max(1, int(freedom)) - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
