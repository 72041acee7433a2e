"""How well runs answer against how long they think: a chart and a table of each ``curve.json`` that has thinking budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import Series
from apportion.reports.measured import Measured, chart, of_cells, series, spanned, used
from apportion.reports.view import LINES, MARKS, SCORES, View
from apportion.runs import RunRecord
from apportion.runs.curve import CurveCell, CurveRecord


@dataclass(frozen=True)
class Row:
    """A line of the table, in words; ``name`` and ``kv`` say which line of the chart it is a point of."""

    name: str
    kv: str
    budget: str
    used: str
    score: str
    span: str
    forced: str
    inserted: str
    read: str


@dataclass(frozen=True)
class ThinkingCurve:
    """One run's curve: whose it is, what has to be said of it, each line of its chart with its area, and its table.

    ``crossed``: whether cells differ in what is read of the cache too.
    """

    whose: str
    notes: list[str]
    score: str
    lines: list[tuple[Series, str]]
    chart: Markup | None
    rows: list[Row]
    crossed: bool


def thinking_curves(view: View) -> list[ThinkingCurve]:
    """Return the curve of each arm's first run that has one."""
    found = []
    for arm in view.arms:
        runs = [run for run in arm.runs if run.curve and thought_about(run.curve)]
        if runs and (record := runs[0].curve):
            found.append(_drawn(arm.name, runs, record))
    return found


def thought_about(record: CurveRecord) -> list[CurveCell]:
    """Return the cells that have a thinking budget."""
    return [cell for cell in record["cells"] if "thinking" in cell and "used" in cell]


def _drawn(arm: str, runs: Sequence[RunRecord], record: CurveRecord) -> ThinkingCurve:
    cells, prompts = thought_about(record), record["settings"].get("prompts")
    groups: dict[tuple[str, str], list[CurveCell]] = {}
    for cell in cells:
        groups.setdefault((cell["name"], cell.get("kv") or ""), []).append(cell)
    score = SCORES.get(str(record["settings"].get("metric")), "score")
    lines: list[tuple[Series, str]] = []
    rows: list[Row] = []
    for place, ((name, kv), of_line) in enumerate(groups.items()):
        alone = sum(other == name for other, _ in groups) == 1
        label = name if alone else f"{name}, {kv or 'all'}"
        line = of_cells(of_line, prompts, (record.get("area") or {}).get(label))
        colour, mark = LINES[place % len(LINES)], MARKS[place % len(MARKS)]
        lines.append((series(label, colour, mark, line), words.loss(line.area)))
        rows += _rows(name, kv, line, of_line)
    drawn = chart(f"{arm}: {score} against thinking tokens used", score, [line for line, _ in lines])
    whose = f"{arm}, seed {runs[0].seed}"
    return ThinkingCurve(whose, _notes(runs, prompts), score, lines, drawn, rows, len(groups) > 1)


def _notes(runs: Sequence[RunRecord], prompts: int | None) -> list[str]:
    said = [f"{words.several(prompts, 'prompt')}, each answered once under every budget."] if prompts else []
    if len(runs) > 1:
        said.append(f"Of {len(runs)} runs of this arm that have a curve the first is shown, seed {runs[0].seed}.")
    return said


def _rows(name: str, kv: str, line: Measured, cells: Sequence[CurveCell]) -> list[Row]:
    read = {cell.get("thinking"): cell.get("read_a_step") for cell in cells}
    return [
        Row(
            name,
            kv or "all",
            "no limit" if point.budget is None else f"{point.budget:,}",
            used(point.used),
            words.loss(point.score),
            spanned(point.span) if point.span else "",
            words.percent(point.forced),
            "" if point.inserted is None else used(point.inserted),
            words.size(read[point.budget]),
        )
        for point in line.points
    ]
