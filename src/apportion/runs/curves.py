"""The maths of "tokens to reach": pure functions on curves, lists of (spent, loss) in the order of spending."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from apportion.runs.schema import HistoryRecord, Spent

Curve = Sequence[tuple[float, float]]


def tokens_spent(record: HistoryRecord) -> float:
    """Supervised tokens trained on."""
    return float(record["spent"]["train"]["supervised"]) if "train" in record["spent"] else 0.0


def generated_tokens(spent: Mapping[str, Spent]) -> int:
    """Tokens of the account `generate` that were generated: thinking, answers and what was inserted."""
    account = spent.get("generate")
    return account.get("thinking", 0) + account.get("answer", 0) + account.get("inserted", 0) if account else 0


def counted_flops(spent: Mapping[str, Spent]) -> float:
    """FLOPs of all accounts but `evaluate`: a method pays for its own passes, nobody for being looked at."""
    return float(sum(account["flops"] for name, account in spent.items() if name != "evaluate"))


def flops_spent(record: HistoryRecord) -> float:
    """FLOPs of all accounts but `evaluate`."""
    return counted_flops(record["spent"])


def curve(history: Iterable[HistoryRecord], metric: str, total_flops: bool = False) -> list[tuple[float, float]]:
    """Return (spent, loss) at each record that has the metric, such as ``macro`` or ``target``.

    Spent is supervised training tokens, or FLOPs of all accounts if ``total_flops``.
    """
    spent = flops_spent if total_flops else tokens_spent
    points = []
    for record in history:
        value = record.get(metric)
        if isinstance(value, (int, float)):
            points.append((spent(record), float(value)))
    return points


def best(points: Curve) -> tuple[float, float] | None:
    """Return the first point of the lowest loss, None for an empty curve."""
    return min(points, key=lambda point: point[1]) if points else None


def first_reach(points: Curve, target: float) -> float | None:
    """Return what had been spent when the curve, linear between its points, first came down to ``target``."""
    previous: tuple[float, float] | None = None
    for spent, loss in points:
        if loss <= target:
            if previous is None or loss == target:
                return spent
            start, high = previous
            return start + (spent - start) * (high - target) / (high - loss)
        previous = (spent, loss)
    return None


def share_to_best(mine: Curve, other: Curve) -> float | None:
    """Return what ``mine`` spent to come down to the lowest loss of ``other``, as a share of what ``other`` spent.

    1.0 for a curve against itself; None if ``mine`` never gets there, or if ``other`` was at its best before it had
    spent anything.
    """
    goal = best(other)
    if goal is None or goal[0] <= 0:
        return None
    reached = first_reach(mine, goal[1])
    return None if reached is None else reached / goal[0]


def at(points: Curve, spent: float) -> float | None:
    """Return the loss at ``spent``, linear between points; None outside the curve."""
    if not points or not points[0][0] <= spent <= points[-1][0]:
        return None
    previous = points[0]
    for x, y in points:
        if x >= spent:
            return y if x == spent or x == previous[0] else _between(previous, (x, y), spent)
        previous = (x, y)
    return None


def _between(left: tuple[float, float], right: tuple[float, float], x: float) -> float:
    return left[1] + (right[1] - left[1]) * (x - left[0]) / (right[0] - left[0])


def statistics(values: Iterable[float | None]) -> dict[str, float] | None:
    """Return mean, min and max of the values that are there, None if none is."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    # The mean of equal numbers is that number, not one a rounding away from it: ranges are compared with it.
    mean = min(max(sum(known) / len(known), min(known)), max(known))
    return {"mean": mean, "min": min(known), "max": max(known)}
