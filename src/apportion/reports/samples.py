"""Samples of the answers that models wrote to downstream tasks, with their scores, beside the references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apportion.reports.downstream import evaluated, said_of
from apportion.reports.view import Arm, View
from apportion.runs import RunRecord, read_answers
from apportion.runs.evaluation import Answer

_TASKS, _EACH = 6, 3
_READ = 200  # of a task's answers, to choose from
_PROMPT, _REFERENCE, _ANSWER = 700, 300, 400  # characters


@dataclass(frozen=True)
class Written:
    """What one arm's model wrote, and its score in words."""

    arm: Arm
    text: str
    score: str


@dataclass(frozen=True)
class Sample:
    """An example: the end of its prompt, its reference, and an answer an arm."""

    id: int
    prompt: str
    reference: str
    answers: list[Written]


@dataclass(frozen=True)
class OfTask:
    """The samples of a task, and the metric their scores are of."""

    task: str
    metric: str
    samples: list[Sample]


def samples(view: View) -> list[OfTask]:
    """Return three examples of up to six generated tasks, those first in which the arms' scores differ most.

    An arm's answers are those of its first run that has some. Of each set of tasks one comes before a second one does.
    """
    runs = {arm: held[0] for arm in view.arms if (held := evaluated(arm))}
    found: list[OfTask] = []
    for task, metric in _generated(list(runs.values())):
        if len(found) == _TASKS:
            break
        if chosen := _chosen(task, runs):
            found.append(OfTask(task, metric, chosen))
    return found


def _generated(runs: list[RunRecord]) -> list[tuple[str, str]]:
    tasks = {name: task for run in runs if run.evaluation for name, task in run.evaluation["tasks"].items()}
    places: dict[str, int] = {}
    order: list[tuple[int, int, str, str]] = []
    for name, task in tasks.items():
        if task["generates"]:
            places[task["set"]] = places.get(task["set"], -1) + 1
            order.append((places[task["set"]], len(order), name, said_of(task["metric"])))
    return [(name, metric) for *_, name, metric in sorted(order)]


def _chosen(task: str, runs: Mapping[Arm, RunRecord]) -> list[Sample]:
    held = {arm: {answer["id"]: answer for answer in read_answers(run.path, task, _READ)} for arm, run in runs.items()}
    held = {arm: answers for arm, answers in held.items() if answers}
    common = set.intersection(*(set(answers) for answers in held.values())) if held else set()

    def differ(i: int) -> float:
        scores = [score for answers in held.values() if (score := answers[i]["score"]) is not None]
        return max(scores) - min(scores) if scores else 0.0

    order = sorted(common, key=lambda i: (-differ(i), i))[:_EACH]
    return [_sample(i, {arm: answers[i] for arm, answers in held.items()}) for i in order]


def _sample(i: int, answers: Mapping[Arm, Answer]) -> Sample:
    first = next(iter(answers.values()))
    prompt = first["prompt"]
    prompt = prompt if len(prompt) <= _PROMPT else "…" + prompt[1 - _PROMPT :]
    written = [
        Written(arm, _cut(answer["answer"], _ANSWER), _score(answer["score"])) for arm, answer in answers.items()
    ]
    return Sample(i, prompt, _cut(first["reference"], _REFERENCE), written)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _score(score: float | None) -> str:
    return "no score" if score is None else f"score {score:.3g}"
