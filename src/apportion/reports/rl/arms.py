"""The arms of a page on reinforcement, and what each run answered before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apportion.reports.measured import Measured, Point, measured, merged, of_cells
from apportion.reports.view import LINES, MARKS, Arm
from apportion.runs import RunRecord
from apportion.runs.curves import statistics
from apportion.runs.equality import differences
from apportion.runs.reinforce import BudgetCurve
from apportion.runs.thinking import interval, tokens_to

LEVEL = 0.9
"""The accuracy of which it is said how many tokens it takes."""


@dataclass(frozen=True)
class RlView:
    """The arms of the page by name, and what keeps their runs from being compared, if anything does."""

    arms: tuple[Arm, ...]
    differs: tuple[str, ...] = ()

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def seeds(self) -> list[int]:
        """The seeds of all arms."""
        return sorted({run.seed for run in self.runs})

    @property
    def budgets(self) -> list[int | None]:
        """Every thinking budget that answers were measured at, no limit last."""
        found = {b for run in self.runs for line in (before(run), after(run)) if line for b in line.budgets}
        return sorted(found, key=lambda budget: (budget is None, budget or 0))

    @property
    def start(self) -> Measured | None:
        """What was answered before: by the model that all runs began with, or the mean over the models of several starts."""
        lines: dict[str | None, Measured] = {}
        for run in self.runs:
            if line := before(run):
                lines.setdefault(run.start, line)
        return merged(list(lines.values())) if lines else None


def arrange(runs: Mapping[str, Sequence[RunRecord]]) -> RlView:
    """Give every arm its colour and mark; an arm without finished runs is shown as it has come."""
    arms = [
        Arm(name, tuple(of_arm), {}, LINES[place % len(LINES)], MARKS[(place + 1) % len(MARKS)])
        for place, (name, of_arm) in enumerate(sorted(runs.items()))
    ]
    return RlView(tuple(arms), tuple(differences(runs)))


def before(run: RunRecord) -> Measured | None:
    """Return what was measured before the first step; None where nothing says."""
    return _of_curve(run, "before") or of_history(run.history[:1]) or _of_standing((run.summary or {}).get("first"))


def after(run: RunRecord) -> Measured | None:
    """Return what was measured at the end, or last in an unfinished run; None where nothing was since the start."""
    later = of_history(run.history[:0:-1])
    return (
        (_of_curve(run, "after") if run.finished else None) or later or _of_standing((run.summary or {}).get("final"))
    )


def told(arm: Arm) -> list[RunRecord]:
    """Return the runs that an arm's numbers are of: those that have finished, or the one that is shown."""
    return arm.finished or [arm.shown]


def reached(arm: Arm) -> Measured | None:
    """Return the mean of what an arm's runs came to."""
    lines = [line for run in told(arm) if (line := after(run))]
    return merged(lines) if lines else None


def areas(runs: Iterable[RunRecord]) -> dict[str, float] | None:
    """Return mean and range over runs of the area at the end."""
    return statistics(line.area for run in runs if (line := after(run)))


def areas_before(runs: Iterable[RunRecord]) -> dict[str, float] | None:
    """Return mean and range over runs of the area before the first step."""
    return statistics(line.area for run in runs if (line := before(run)))


def tokens_to_level(arm: Arm) -> tuple[dict[str, float] | None, int, int]:
    """Return mean and range of the tokens at which runs come up to `LEVEL`, how many do, and of how many."""
    lines = [line for run in told(arm) if (line := after(run))]
    found = [tokens_to(line.places, LEVEL) for line in lines]
    return statistics(found), sum(tokens is not None for tokens in found), len(found)


def _of_curve(run: RunRecord, name: str) -> Measured | None:
    """Read the cells of that name, with the area that the summary has of them."""
    if run.curve is None:
        return None
    standing = (run.summary or {}).get({"before": "first", "after": "final"}[name]) or {}
    known = standing.get("area")
    known = (run.curve.get("area") or {}).get(name) if known is None else known
    cells = [cell for cell in run.curve["cells"] if cell["name"] == name]
    prompts = run.curve["settings"].get("prompts")
    line = of_cells(cells, prompts, known)
    return _with_natural(line, standing, prompts) if line.points else None


def of_history(records: Iterable[Mapping[str, Any]]) -> Measured | None:
    """Read the first of the records that measured answers."""
    curve: BudgetCurve | None = next((record["curve"] for record in records if record.get("curve")), None)
    if curve is None:
        return None
    columns = zip(curve["budgets"], curve["used"], curve["accuracy"], curve["error"], curve["forced"], strict=True)
    points = [
        Point(budget, used, score, interval(score, error, curve.get("prompts")), forced)
        for budget, used, score, error, forced in columns
    ]
    return measured(points, curve.get("area"))


def _of_standing(standing: Mapping[str, Any] | None) -> Measured | None:
    """Read what a summary says of the model, which has no standard errors."""
    if not standing or not standing.get("accuracy"):
        return None
    points = [
        Point(int(budget), standing["used"][budget], score, None, (standing.get("forced") or {}).get(budget))
        for budget, score in standing["accuracy"].items()
    ]
    return _with_natural(measured(points, standing.get("area")), standing)


def _with_natural(line: Measured, standing: Mapping[str, Any], prompts: int | None = None) -> Measured:
    """Add the answers without a limit, where the line has none and the summary has them; the area is the budgets'."""
    natural = standing.get("natural")
    if not natural or line.at(None):
        return line
    right = natural["accuracy"]
    return measured([*line.points, Point(None, natural["used"], right, interval(right, None, prompts))], line.area)
