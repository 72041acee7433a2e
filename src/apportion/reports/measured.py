"""Answers measured at several thinking budgets: what was used of each, how many were right, and the line they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import Frame, Series, line_chart
from apportion.reports.svg import Point as Place
from apportion.runs.curve import CurveCell
from apportion.runs.curves import statistics
from apportion.runs.thinking import area, interval


@dataclass(frozen=True)
class Point:
    """Answers under one thinking budget, None without a limit: mean tokens used, mean score, and how sure that is.

    ``span`` is the 95 % interval, or the range over seeds where the point is a mean of several runs; None where it is not
    known. ``forced`` is the share of answers whose thinking was cut off, ``inserted`` the mean of tokens nobody chose.
    """

    budget: int | None
    used: float
    score: float
    span: tuple[float, float] | None
    forced: float | None = None
    inserted: float | None = None

    @property
    def place(self) -> Place:
        """Where it stands in a chart."""
        return self.used, self.score

    @property
    def said(self) -> str:
        """The point in words, for the pointer."""
        span = spanned(self.span) if self.span else ""
        sure = f" ({span})" if span else ""
        cut = f", {words.percent(self.forced)} cut off" if self.forced is not None else ""
        return f"{words.loss(self.score)}{sure}, {budgeted(self.budget)}{cut}"


@dataclass(frozen=True)
class Measured:
    """A line of points, in the order of their budgets, no limit last; ``area`` is the mean score under it."""

    points: tuple[Point, ...]
    area: float | None

    def at(self, budget: int | None) -> Point | None:
        """Return the point of a budget."""
        return next((point for point in self.points if point.budget == budget), None)

    @property
    def budgets(self) -> list[int | None]:
        """The budgets, no limit last."""
        return [point.budget for point in self.points]

    @property
    def places(self) -> list[Place]:
        """Tokens used and score of each point, fewest tokens first."""
        return sorted(point.place for point in self.points)


def measured(points: Iterable[Point], known: float | None = None) -> Measured:
    """Put points in order; the area is the ``known`` one, else worked out up to the largest of what was allowed or used."""
    ordered = tuple(sorted(points, key=lambda point: (point.budget is None, point.budget or 0)))
    if known is None and ordered:
        end = max(max(point.budget or 0, point.used) for point in ordered)
        known = area((point.place for point in ordered), end)
    return Measured(ordered, known)


def of_cells(cells: Iterable[CurveCell], prompts: int | None, known: float | None = None) -> Measured:
    """Return the line of those cells of a ``curve.json`` that were thought about."""
    found = [
        Point(
            cell["thinking"],
            cell["used"],
            cell["score"],
            interval(cell["score"], cell["error"], prompts),
            cell.get("forced"),
            cell.get("inserted"),
        )
        for cell in cells
        if "thinking" in cell and "used" in cell
    ]
    return measured(found, known)


def merged(lines: Sequence[Measured]) -> Measured:
    """Return the means over several runs at each budget that all of them have; spans are the ranges over runs."""
    if len(lines) == 1:
        return lines[0]
    points = []
    for budget in lines[0].budgets if lines else []:
        found = [point for line in lines if (point := line.at(budget))]
        if len(found) == len(lines):
            points.append(_mean(budget, found))
    areas = statistics(line.area for line in lines)
    return Measured(tuple(points), areas["mean"] if areas else None)


def _mean(budget: int | None, found: Sequence[Point]) -> Point:
    scores = [point.score for point in found]
    used = sum(point.used for point in found) / len(found)
    forced, inserted = (statistics(values) for values in zip(*((p.forced, p.inserted) for p in found), strict=True))
    return Point(
        budget,
        used,
        sum(scores) / len(scores),
        (min(scores), max(scores)),
        forced["mean"] if forced else None,
        inserted["mean"] if inserted else None,
    )


def series(name: str, colour: str, mark: str, line: Measured) -> Series:
    """Return the line as a chart draws it, with a band through the spans of those points that have one."""
    points = sorted(line.points, key=lambda point: point.place)
    sure = [(point.used, *point.span) for point in points if point.span]
    return Series(
        name,
        colour,
        mark,
        [point.place for point in points],
        [(used, low) for used, low, _ in sure],
        [(used, high) for used, _, high in sure],
        [point.said for point in points],
    )


def chart(title: str, score: str, lines: Sequence[Series]) -> Markup | None:
    """Draw score against thinking tokens used; None where nothing was measured."""
    shown = [line for line in lines if line.mean]
    if not shown:
        return None
    xs = [x for line in shown for x, _ in line.mean]
    ys = [y for line in shown for part in (line.mean, line.low, line.high) for _, y in part]
    margin = 0.08 * (max(ys) - min(ys)) or 0.05
    edge = 0.03 * (max(xs) - min(xs)) or 1.0
    x = (max(min(xs) - edge, 0.0 if min(xs) else -edge), max(xs) + edge)
    frame = Frame(x, (min(ys) - margin, max(ys) + margin))
    return line_chart(frame, shown, (title, "thinking tokens used", score), (used, words.loss))


def used(tokens: float) -> str:
    """Return a mean number of thinking tokens: 15.8, or 1.25k."""
    return f"{tokens:.1f}".removesuffix(".0") if tokens < 999.95 else words.count(tokens)


def budgeted(budget: int | None) -> str:
    """Return a nominal budget in words."""
    return "no limit" if budget is None else f"budget {budget:,}"


def spanned(span: tuple[float, float]) -> str:
    """Return both ends of a span, 0.79–0.85; nothing where they read the same."""
    low, high = (f"{end:.2f}" for end in span)
    return "" if low == high else f"{low}–{high}"
