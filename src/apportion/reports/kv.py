"""How well runs answer against what they read of their cache: a chart and a table of each ``curve.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import Frame, Goal, Series, line_chart
from apportion.reports.view import LINES, MARKS, SCORES, View
from apportion.runs import RunRecord
from apportion.runs.curve import CurveCell, CurveRecord


@dataclass(frozen=True)
class Row:
    """A line of the table, in words."""

    cache: str
    budget: str
    score: str
    error: str
    read: str
    resident: str
    host: str


@dataclass(frozen=True)
class KvCurve:
    """One run's curve: whose it is, what has to be said of it, the lines of its chart, and its table."""

    whose: str
    notes: list[str]
    score: str
    series: list[Series]
    chart: Markup
    rows: list[Row]


def kv_curves(view: View) -> list[KvCurve]:
    """Return the curve of each arm's first run that has one; answers that were thought about stand elsewhere."""
    found = []
    for arm in view.arms:
        runs = [run for run in arm.runs if run.curve and _cells(run.curve)]
        if runs and (record := runs[0].curve):
            found.append(_drawn(arm.name, runs, record))
    return found


def _cells(record: CurveRecord) -> list[CurveCell]:
    return [cell for cell in record["cells"] if "used" not in cell]


def _drawn(arm: str, runs: Sequence[RunRecord], record: CurveRecord) -> KvCurve:
    cells = _cells(record)
    metric = str(record["settings"]["metric"])
    score = SCORES.get(metric, metric)
    series = _series([cell for cell in cells if cell["kv"] is not None])
    dense = next((cell for cell in cells if cell["kv"] is None), None)
    return KvCurve(
        f"{arm}, seed {runs[0].seed}",
        _notes(runs, record),
        score,
        series,
        _chart(f"{arm}: {score} against bytes read a decode step", score, series, dense),
        [_row(cell) for cell in cells],
    )


def _notes(runs: Sequence[RunRecord], record: CurveRecord) -> list[str]:
    said = [f"{words.several(record['settings']['prompts'], 'prompt')}, each answered once in every cell."]
    if len(runs) > 1:
        said.append(f"Of {len(runs)} runs of this arm that have a curve the first is shown, seed {runs[0].seed}.")
    dense = {cell["name"]: int(cell["cache"].get("dense_layers") or 0) for cell in _cells(record)}
    for layers in sorted(set(dense.values()) - {0}):
        names = [name for name, count in dense.items() if count == layers]
        first = "first layer" if layers == 1 else f"first {layers} layers"
        said.append(f"{words.together(names)} {'reads' if len(names) == 1 else 'read'} the {first} whole.")
    return said


def _series(cells: Sequence[CurveCell]) -> list[Series]:
    """Return a line a method, by what it reads."""
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        points.setdefault(cell["name"], []).append((cell["read_a_step"], cell["score"]))
    return [
        Series(name, LINES[place % len(LINES)], MARKS[place % len(MARKS)], sorted(line))
        for place, (name, line) in enumerate(points.items())
    ]


def _chart(title: str, score: str, series: Sequence[Series], dense: CurveCell | None) -> Markup:
    goal = None if dense is None else Goal(dense["score"], f"dense, {_read(dense)} a step", above=True)
    xs = [x for s in series for x, _ in s.mean] + ([dense["read_a_step"]] if dense else [])
    ys = [y for s in series for _, y in s.mean] + ([dense["score"]] if dense else [])
    margin = 0.14 * (max(ys) - min(ys)) or 0.05
    # An answer of one token takes no decode step, and reads nothing: a logarithm wants more.
    low, high = max(min(xs), 1.0), max(*xs, 1.0)
    frame = Frame((low / 1.15, high * 1.15), (min(ys) - margin, max(ys) + margin), log_x=True)
    inside = [Series(s.name, s.colour, s.mark, [(max(x, 1.0), y) for x, y in s.mean]) for s in series]
    return line_chart(frame, inside, (title, "bytes read a decode step", score), (words.size, words.loss), goal)


def _row(cell: CurveCell) -> Row:
    return Row(
        cell["name"],
        cell["kv"] or "all",
        words.loss(cell["score"]),
        "" if cell["error"] is None else words.loss(cell["error"]),
        _read(cell),
        words.size(cell["resident_peak"]),
        words.size(cell["host_peak"]) if cell["host_peak"] else "",
    )


def _read(cell: CurveCell) -> str:
    return words.size(cell["read_a_step"])
