"""``evaluation.json``: what a finished run's model scored on downstream tasks, and the means of it that reports show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from apportion.runs.atomic import atomic_write_text
from apportion.runs.schema import Spent, dump_file, dump_line

FILE = "evaluation.json"
# Folder of the answers, one file a task.
ANSWERS = "evaluation"


class Score(TypedDict):
    """One metric of a task: its mean over the examples, and the standard error of that where the harness knows one."""

    value: float | None
    error: float | None


class TaskScores(TypedDict):
    """What one task gave.

    ``set``: the name it was asked for by, its own or that of a set of tasks, such as ``bbh``. ``metric``: which of
    ``metrics`` stands for it. ``generates``: whether answers were written, and not only told apart by their likelihood.
    ``settings``: what would make another measurement of it, were it different.
    """

    set: str
    metric: str
    higher_is_better: bool
    examples: int
    metrics: dict[str, Score]
    generates: bool
    settings: dict[str, Any]
    spent: Spent
    seconds: float


class EvaluationRecord(TypedDict):
    """``evaluation.json``: ``groups`` are those of a suite, by name, each with its sets; other sets stand alone.

    ``earlier`` is what measurements took that were replaced by others of the same tasks.
    """

    tasks: dict[str, TaskScores]
    groups: dict[str, list[str]]
    versions: NotRequired[dict[str, str]]
    earlier: NotRequired[Spent]


class Answer(TypedDict):
    """A line of ``evaluation/<task>.jsonl``: ``score`` is the example's own value of the task's metric."""

    id: int
    prompt: str
    reference: str
    answer: str
    score: float | None


@dataclass(frozen=True)
class Mean:
    """A mean over tasks: its standard error, None where one is not known, and how many examples it was taken over."""

    value: float
    error: float | None
    examples: int


def score(task: TaskScores) -> Mean | None:
    """Return a task's score, None where it is no number."""
    number = task["metrics"][task["metric"]]
    return None if number["value"] is None else Mean(number["value"], number["error"], task["examples"])


def mean(parts: Sequence[Mean]) -> Mean | None:
    """Return the plain mean of independent scores, None of none."""
    if not parts:
        return None
    errors = [part.error for part in parts if part.error is not None]
    known = len(errors) == len(parts)
    return Mean(
        sum(part.value for part in parts) / len(parts),
        math.sqrt(sum(error**2 for error in errors)) / len(parts) if known else None,
        sum(part.examples for part in parts),
    )


def set_scores(record: EvaluationRecord) -> dict[str, Mean]:
    """Return the score of each set by name: the mean of its tasks' scores; sets with a task that has none are left out."""
    members: dict[str, list[Mean | None]] = {}
    for task in record["tasks"].values():
        members.setdefault(task["set"], []).append(score(task))
    found = {name: mean(_all(parts)) for name, parts in members.items()}
    return {name: number for name, number in found.items() if number is not None}


def group_scores(record: EvaluationRecord) -> dict[str, Mean]:
    """Return the score of each group by name, the mean of its sets; a group of which a set is missing is left out."""
    sets = set_scores(record)
    found = {group: mean(_all([sets.get(name) for name in names])) for group, names in record["groups"].items()}
    return {group: number for group, number in found.items() if number is not None}


def macro(record: EvaluationRecord) -> Mean | None:
    """Return the mean of the sets of all groups, or without groups of all sets; None where one is missing or is no share.

    Every set counts alike, as in the ADAPT-mixtures study. What is better when it is lower has no place in it.
    """
    sets = set_scores(record)
    wanted = [name for names in record["groups"].values() for name in names] or list(sets)
    falling = {task["set"] for task in record["tasks"].values() if not task["higher_is_better"]}
    return mean(_all([None if name in falling else sets.get(name) for name in wanted]))


def _all(parts: Iterable[Mean | None]) -> list[Mean]:
    """Return the parts if all are there, else none of them."""
    found = list(parts)
    known = [part for part in found if part is not None]
    return known if len(known) == len(found) else []


def write_evaluation(folder: Path, record: EvaluationRecord) -> None:
    """Write ``evaluation.json``, atomically.

    Raises:
        ApportionError: It cannot be written.
    """
    atomic_write_text(folder / FILE, dump_file(record))


def write_answers(folder: Path, task: str, answers: Iterable[Mapping[str, Any]]) -> None:
    """Write the answers to one task, atomically.

    Raises:
        ApportionError: They cannot be written.
    """
    (folder / ANSWERS).mkdir(exist_ok=True)
    atomic_write_text(folder / ANSWERS / f"{task}.jsonl", "".join(dump_line(answer) + "\n" for answer in answers))
