"""The maths of score against thinking tokens used: pure functions on points (tokens used, score)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from apportion.runs.curves import first_reach

Z = 1.959964
"""How many standard errors a normal 95 % interval goes either way."""


def area(points: Iterable[tuple[float, float]], end: float | None = None) -> float | None:
    """Return the mean score over thinking tokens, from the fewest that were used to ``end``, by the trapezoid rule.

    Behind its last point the line goes on level: a model that is done with thinking keeps its score for every larger budget.
    Without that, of two lines the one that gets everything right sooner could have the smaller area.

    Args:
        points: Tokens used and score, in any order; points that used equally many count as their mean.
        end: In tokens, such as the largest budget of all lines that are compared; not before the last point.

    Returns:
        None where there is no room under the line: fewer than two points apart, and no ``end`` behind them.
    """
    by_used: dict[float, list[float]] = {}
    for used, score in sorted(points):
        by_used.setdefault(float(used), []).append(score)
    line = [(used, sum(scores) / len(scores)) for used, scores in by_used.items()]
    if line and end is not None and end > line[-1][0]:
        line.append((float(end), line[-1][1]))
    if len(line) < 2:
        return None
    under = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(line))
    return under / (line[-1][0] - line[0][0])


def interval(score: float, error: float | None, count: int | None) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean of scores in [0, 1], Wilson's for a share; None where too little is known.

    With p the mean and m = p (1 - p) / error^2 (so many right or wrong answers are that sure), else m = ``count``:

        (p + z^2 / 2m ± z sqrt(p (1 - p) / m + z^2 / 4m^2)) / (1 + z^2 / m)

    Its ends stay in [0, 1], and a score of 1 on few examples is not taken for certain, as it is by its standard error of 0.
    Source: E. B. Wilson, JASA 22 (1927), 209-212.

    Args:
        score: The mean.
        error: Its standard error, None where there is none.
        count: How many scores it is of; counts only where ``error`` is 0 or None.
    """
    spread = score * (1 - score)
    size = spread / error**2 if error and spread > 0 else count
    if not size:
        return None
    middle, reach = score + Z**2 / (2 * size), Z * math.sqrt(max(spread, 0.0) / size + (Z / (2 * size)) ** 2)
    low, high = ((middle + sign * reach) / (1 + Z**2 / size) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def tokens_to(points: Iterable[tuple[float, float]], score: float) -> float | None:
    """Return the thinking tokens at which the line, linear between points, first comes up to ``score``; None if never."""
    return first_reach([(used, -value) for used, value in sorted(points)], -score)
