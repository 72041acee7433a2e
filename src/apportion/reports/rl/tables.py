"""The tables of a page on reinforcement as plain rows; the template only lays them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from apportion.reports import words
from apportion.reports.files import links_of
from apportion.reports.measured import Measured, Point, spanned, used
from apportion.reports.rl.arms import LEVEL, RlView, after, areas, areas_before, before, reached, tokens_to_level, told
from apportion.reports.rl.verdict import generated
from apportion.reports.view import Arm
from apportion.runs import RunRecord
from apportion.runs.thinking import tokens_to


@dataclass(frozen=True)
class Cell:
    """A number in words, and what stands below it, a line each: how sure it is, and what it took."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of the table of answers: before, or an arm with its key in the charts."""

    name: str
    colour: str
    mark: str
    unfinished: int
    cells: list[Cell]


@dataclass(frozen=True)
class Ran:
    """A run in the table of runs: area before and after, tokens generated, and its files as (name, link)."""

    run: RunRecord
    area: str
    generated: str
    files: list[tuple[str, str]]


def columns(view: RlView) -> list[str]:
    """Return the names of the columns of `answers`."""
    limited = [f"Budget {b:,}" if b is not None else "No limit" for b in view.budgets]
    return ["Area", *limited, f"Tokens at {LEVEL:g} right"]


def answers(view: RlView) -> list[Row]:
    """Return the answers before, and those of each arm: area, accuracy and tokens used at each budget."""
    rows = [_before(view)] if view.start else []
    for arm in view.arms:
        if line := reached(arm):
            cells = [_of(areas(told(arm)), words.loss), *_points(view, line), _tokens(arm)]
            missing = len(arm.runs) - len(arm.finished)
            alone = "after" if arm.finished else "so far"
            name = alone if len(view.runs) == 1 else arm.name
            rows.append(Row(name, arm.colour, arm.mark, missing, cells))
    return rows


def runs(view: RlView, folder: Path) -> list[tuple[Arm, list[Ran]]]:
    """Return the runs of each arm, with links to those files that are there, relative to ``folder``."""
    return [(arm, [_ran(run, folder) for run in arm.runs]) for arm in view.arms]


def _before(view: RlView) -> Row:
    line = view.start or Measured((), None)
    reach = tokens_to(line.places, LEVEL)
    tokens = Cell("never" if reach is None else used(reach))
    return Row("before", "b0", "circle", 0, [_of(areas_before(view.runs), words.loss), *_points(view, line), tokens])


def _points(view: RlView, line: Measured) -> list[Cell]:
    return [_point(line.at(budget)) for budget in view.budgets]


def _point(point: Point | None) -> Cell:
    if point is None:
        return Cell(words.NONE)
    sure = spanned(point.span) if point.span else ""
    cut = "" if point.forced is None else f"{words.percent(point.forced)} cut off"
    notes = (sure, f"{used(point.used)} tokens", cut)
    return Cell(words.loss(point.score), tuple(note for note in notes if note))


def _of(numbers: Mapping[str, float] | None, say: Callable[[float], str]) -> Cell:
    if numbers is None:
        return Cell(words.NONE)
    spread = words.span(numbers, say)
    return Cell(say(numbers["mean"]), (spread,) if spread else ())


def _tokens(arm: Arm) -> Cell:
    numbers, came, of = tokens_to_level(arm)
    if numbers is None:
        return Cell("never")
    cell = _of(numbers, used)
    return cell if came == of else Cell(cell.text, (f"in {came} of {of} seeds",))


def _ran(run: RunRecord, folder: Path) -> Ran:
    first, last = before(run), after(run)
    ends = [words.loss(line.area if line else None) for line in (first, last)]
    return Ran(run, " → ".join(ends), words.count(generated(run)), links_of(run.path, folder))
