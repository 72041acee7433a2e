"""The Pareto front of cost and loss: what can be had for a cost, and what is had cheaper elsewhere."""

from __future__ import annotations

from collections.abc import Mapping


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the (cost, loss) pairs that no other dominates, the cheapest first.

    A pair dominates another that has at least its cost and at least its loss, and more of one of them. Pairs that are equal
    are on the front together or not at all; they keep the order of ``points``.

    In the order of cost, then loss, a pair is on the front if its loss is below all before it. One pass after a sort.
    """
    found: list[str] = []
    last: tuple[float, float] | None = None
    for name in sorted(points, key=lambda name: points[name]):
        if last is None or points[name][1] < last[1] or points[name] == last:
            found.append(name)
            last = points[name]
    return found
