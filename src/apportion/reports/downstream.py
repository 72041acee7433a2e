"""Downstream scores of several runs: by group, set and in all, with their errors, each against the best baseline's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from apportion.reports import words
from apportion.reports.tables import Cell
from apportion.reports.view import Arm, View
from apportion.runs import RunRecord, read_answers
from apportion.runs.evaluation import EvaluationRecord, Mean, group_scores, macro, set_scores
from apportion.runs.uncertainty import variance

_CLEAR = 2.0  # standard errors of a difference
_FULL = 0.2  # a difference of this much, or of this share of larger scores, is full colour


@dataclass(frozen=True)
class Row:
    """A line of the table: ``kind`` is ``group``, ``set`` (of a group), ``alone`` (a set of none) or ``macro``.

    ``tasks`` has the weight of each task in the score; the weights add up to one.
    """

    name: str
    kind: str
    metric: str
    rises: bool | None
    examples: int
    tasks: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """The rows, each with a cell an arm; the arms; which one they are shaded against; what has to be said of them."""

    rows: list[tuple[Row, list[Cell]]]
    arms: list[Arm]
    reference: str
    notes: list[str]


def table(view: View) -> Table | None:
    """Return the scores of the arms that have any, None where no run was evaluated.

    A score is the mean over an arm's runs. Its error is the mean of the runs' own errors over examples: all seeds answer
    the same ones. A difference d between two arms has the variance

        var_s(d_s) / S + sum_t w_t^2 var_t

    over S seeds in common and the tasks t of the row. var_t is that of the mean difference of the examples, each averaged
    over seeds, where the answers of both arms are there under the same ids; else it is the sum of the two scores' own.
    The best is marked where it is better than every other arm's by more than two errors, over two seeds or more.
    """
    arms = [arm for arm in view.arms if evaluated(arm)]
    if not arms:
        return None
    base = view.baseline if view.baseline in arms else None
    found, rows = _Scores(), []
    rivals = [] if view.differs else arms
    for row in _rows([run.evaluation for arm in arms for run in evaluated(arm) if run.evaluation]):
        rows.append((row, [_cell(row, arm, rivals, base, found) for arm in arms]))
    unlike = [row.name for row, _ in rows if not _alike(row, [run for arm in arms for run in evaluated(arm)])]
    return Table(rows, arms, base.name if base else "", [*_unlike(unlike), *_notes([row for row, _ in rows])])


def said_of(metric: str) -> str:
    """Return a metric as people call it: lm-evaluation-harness writes the filter behind it, ``none`` where there is none."""
    name, _, kept = metric.partition(",")
    return name if kept in ("", "none") else f"{name} ({kept})"


def evaluated(arm: Arm) -> list[RunRecord]:
    """Return the arm's runs that have downstream scores."""
    return [run for run in arm.runs if run.evaluation and run.evaluation["tasks"]]


def _rows(records: Sequence[EvaluationRecord]) -> list[Row]:
    """Return the groups, each before its sets, then the other sets, then the mean of all, as far as any run has them."""
    groups: dict[str, list[str]] = {}
    sets: dict[str, list[str]] = {}
    tasks = {name: task for record in records for name, task in record["tasks"].items()}
    for record in records:
        for group, names in record["groups"].items():
            groups.setdefault(group, names)
    for name, task in tasks.items():
        sets.setdefault(task["set"], []).append(name)

    def row(name: str, kind: str, members: Sequence[str]) -> Row:
        weights: dict[str, float] = {}
        for part in members:
            for task in sets[part]:
                weights[task] = weights.get(task, 0.0) + 1 / len(members) / len(sets[part])
        metrics = dict.fromkeys(said_of(tasks[task]["metric"]) for task in weights)
        ways = {tasks[task]["higher_is_better"] for task in weights}
        examples = sum(tasks[task]["examples"] for task in weights)
        rises = ways.pop() if len(ways) == 1 else None
        return Row(name, kind, next(iter(metrics)) if len(metrics) == 1 else "several", rises, examples, weights)

    found, inside = [], []
    for group, names in groups.items():
        known = [name for name in names if name in sets]
        inside += known
        mean = row(group, "group", known)
        # A mean over what is better when higher and what is better when lower would say nothing.
        whole = len(known) == len(names) and mean.rises is not None
        found += [mean] if whole else []
        found += [row(name, "set" if whole else "alone", [name]) for name in known]
    found += [row(name, "alone", [name]) for name in sets if name not in inside]
    last = row("mean of the groups’ sets" if inside else "mean of all sets", "macro", inside or list(sets))
    stands_there = any(one.tasks == last.tasks for one in found)
    return [*found, last] if last.rises and not stands_there else found


def _score(row: Row, record: EvaluationRecord) -> Mean | None:
    if row.kind == "macro":
        return macro(record)
    return (group_scores(record) if row.kind == "group" else set_scores(record)).get(row.name)


class _Scores:
    """The scores of runs by row and by example, each read and worked out once."""

    def __init__(self) -> None:
        self._means: dict[tuple[int, str, str], Mean | None] = {}
        self._answers: dict[tuple[int, str], dict[int, float]] = {}

    def means(self, row: Row, arm: Arm) -> dict[int, Mean]:
        """Return an arm's scores by seed."""
        found = {}
        for run in evaluated(arm):
            key = (id(run), row.kind, row.name)
            if key not in self._means and run.evaluation:
                self._means[key] = _score(row, run.evaluation)
            if (score := self._means[key]) is not None:
                found[run.seed] = score
        return found

    def answers(self, run: RunRecord, task: str) -> dict[int, float]:
        """Return the score of each of a run's examples of a task by id; none where one is missing."""
        key = (id(run), task)
        if key not in self._answers:
            scores = {answer["id"]: answer["score"] for answer in read_answers(run.path, task)}
            whole = all(score is not None for score in scores.values())
            self._answers[key] = {i: score for i, score in scores.items() if score is not None} if whole else {}
        return self._answers[key]

    def difference(self, row: Row, ours: Arm, other: Arm) -> tuple[float, float | None, int] | None:
        """Return how much higher ``ours`` scored, the standard error of that and the seeds in common; see `table`."""
        mine, theirs = self.means(row, ours), self.means(row, other)
        seeds = [seed for seed in mine if seed in theirs]
        if not seeds or not _alike(row, [*evaluated(ours), *evaluated(other)]):
            return None
        gaps = [mine[seed].value - theirs[seed].value for seed in seeds]
        spread = variance(gaps) / len(gaps) if len(gaps) > 1 else 0.0
        runs = [{run.seed: run for run in evaluated(arm)} for arm in (ours, other)]
        for task, weight in row.tasks.items():
            own = self._of_task(task, [[by_seed[seed] for seed in seeds] for by_seed in runs])
            if own is None:
                return fmean(gaps), None, len(seeds)
            spread += weight**2 * own
        return fmean(gaps), math.sqrt(spread), len(seeds)

    def _of_task(self, task: str, pair: Sequence[Sequence[RunRecord]]) -> float | None:
        """Return the variance of the difference in one task, over its examples."""
        held = [[self.answers(run, task) for run in runs] for runs in pair]
        ids = held[0][0].keys()
        if len(ids) > 1 and all(scores.keys() == ids for side in held for scores in side):
            n = len(held[0])
            means = [sum(a[i] - b[i] for a, b in zip(*held, strict=True)) / n for i in ids]
            return variance(means) / len(means)
        errors = [[_error(run, task) for run in runs] for runs in pair]
        known = [[error for error in side if error is not None] for side in errors]
        if any(len(side) < len(runs) for side, runs in zip(known, pair, strict=True)):
            return None
        return sum(fmean(side) ** 2 for side in known)


def _alike(row: Row, runs: Sequence[RunRecord]) -> bool:
    """Return whether the tasks of a row were measured with the same settings, such as shots, in all runs that have them."""
    held = [run.evaluation["tasks"] for run in runs if run.evaluation]
    found: dict[str, list[dict[str, Any]]] = {
        task: [of[task]["settings"] for of in held if task in of] for task in row.tasks
    }
    return all(settings == same[0] for same in found.values() for settings in same)


def _error(run: RunRecord, task: str) -> float | None:
    held = run.evaluation["tasks"].get(task) if run.evaluation else None
    return held["metrics"][held["metric"]]["error"] if held else None


def _cell(row: Row, arm: Arm, rivals: Sequence[Arm], base: Arm | None, found: _Scores) -> Cell:
    scores = found.means(row, arm)
    if not scores:
        return Cell(words.NONE)
    values, errors = [s.value for s in scores.values()], [s.error for s in scores.values()]
    known = [error for error in errors if error is not None]
    text, error = words.loss(fmean(values)), words.loss(fmean(known)) if len(known) == len(errors) else ""
    span = words.span({"min": min(values), "max": max(values)}, words.loss)
    missing = len(arm.runs) - len(scores)
    notes = [span, f"{len(scores)} of {len(arm.runs)} seeds" if missing else ""]
    shade = 0.0
    if base is not None and arm is not base and (gap := found.difference(row, arm, base)):
        notes.append(words.signed(gap[0]) + (f" ± {words.loss(gap[1])}" if gap[1] is not None else ""))
        theirs = abs(fmean(s.value for s in found.means(row, base).values()))
        # Cells are shaded as losses are: below zero is better.
        shade = max(-1.0, min(1.0, -_way(row) * gap[0] / (_FULL * max(1.0, theirs))))
    return Cell(text, "; ".join(note for note in notes if note), _is_best(row, arm, rivals, found), shade, error)


def _way(row: Row) -> int:
    return 0 if row.rises is None else 1 if row.rises else -1


def _is_best(row: Row, arm: Arm, rivals: Sequence[Arm], found: _Scores) -> bool:
    """Return whether the arm is better than every other by more than two errors, over two seeds or more."""
    others = [other for other in rivals if other is not arm and found.means(row, other)]
    scores = [fmean(score.value for score in found.means(row, one).values()) for one in (arm, *others)]
    if not others or not _way(row) or any(_way(row) * (scores[0] - score) <= 0 for score in scores[1:]):
        return False
    gaps = (found.difference(row, arm, other) for other in others)
    return all(gap and gap[2] > 1 and gap[1] is not None and _way(row) * gap[0] > _CLEAR * gap[1] for gap in gaps)


def _unlike(names: Sequence[str]) -> list[str]:
    which = words.listing(list(names))
    return (
        [f"Not all runs were measured alike, with the same shots and limits, on {which}: compare nothing there."]
        if names
        else []
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    """Return what has to be said of the means: which sets they leave out, and which metrics they take alike."""
    sets, whole = [row for row in rows if row.kind in ("set", "alone")], any(row.kind == "macro" for row in rows)
    said = []
    if falling := [row.name for row in sets if row.rises is False]:
        said.append(
            f"Lower is better for {words.listing(falling)}: it is averaged with no score that is better when higher."
        )
    apart = [row.name for row in sets if row.kind == "alone" and row.rises]
    if whole and apart and len(apart) < len(sets):
        said.append(f"The mean is of the groups’ sets, without {words.listing(apart)}.")
    metrics = sorted({row.metric for row in sets if row.rises})
    if whole and len(metrics) > 1:
        said.append(f"Sets have different metrics ({', '.join(metrics)}); each counts alike in a mean.")
    return said
