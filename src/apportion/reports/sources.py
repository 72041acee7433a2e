"""Which sources a learnt mixture found worth it, in words: what it gave them against their starting share, by seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from apportion.reports import words
from apportion.reports.traced import traced, tracing
from apportion.reports.view import Arm
from apportion.runs import RunRecord

MUCH, LITTLE = 3.0, 1 / 3  # so many times the starting share: worth it, not worth it
_NAMED, _TORN = 8, 4

Shares = Mapping[str, float]


@dataclass(frozen=True)
class Course:
    """One run's mixture: each task's share at the start, over the whole run, and at the end."""

    start: Shares
    given: Shares
    end: Shares


def worth_it(arm: Arm, targets: Collection[str]) -> list[str]:
    """Return which sources the finished runs of an arm drew from; nothing where its mixture is plain, or not written."""
    learnt = [run for run in arm.finished if not run.methods["mixture"]["plain"]]
    courses = [course for run in learnt if (course := _course(run))]
    if not courses:
        return []
    return [*told_apart(arm.name, courses, targets), *_own(arm.name, courses, targets)]


def told_apart(name: str, courses: Sequence[Course], targets: Collection[str]) -> list[str]:
    """Return in words which sources got much more or much less than their starting share.

    Shares are those among the sources, so that what targets take of the draws lowers none. Where all seeds agree, a source
    is worth it that got `MUCH` times its starting share over the run, or more. One is not that ended with under `LITTLE` of
    it, and had not had more than its share before. What only some seeds say is said to be that.

    Args:
        name: Of the arm.
        courses: One for each seed.
        targets: Tasks that are no sources.
    """
    runs = [_among_sources(course, targets) for course in courses]
    sources = [task for task in runs[0].start if all(run.start.get(task, 0.0) > 0 for run in runs)]
    if len(sources) < 2:
        return []
    given = {task: [run.given.get(task, 0.0) / run.start[task] for run in runs] for task in sources}
    ended = {task: [run.end.get(task, 0.0) / run.start[task] for run in runs] for task in sources}
    worth = {task: [times >= MUCH for times in given[task]] for task in sources}
    waste = {
        task: [end < LITTLE and all_in_all < 1 for end, all_in_all in zip(ended[task], given[task], strict=True)]
        for task in sources
    }
    order = sorted(sources, key=lambda task: fmean(given[task]), reverse=True)
    much, little = [t for t in order if all(worth[t])], [t for t in reversed(order) if all(waste[t])]
    when = {1: "in the one seed run", 2: "in both seeds"}.get(len(runs), traced(f"in all {len(runs)} seeds", name))
    found = []
    if much:
        part = traced(words.percent(fmean(sum(run.given.get(task, 0.0) for task in much) for run in runs)), name)
        share = f"{when} more than three times {_their(much)} starting share, {part} of all draws from sources"
        found.append(f"Worth it, says {name}: {_names(name, much)} got {share}.")
    if little:
        share = f"{when} with under a third of {_their(little)} starting share"
        found.append(f"Not worth it, says {name}: {_names(name, little)} ended {share}.")
    if not found:
        torn = any(map(any, (*worth.values(), *waste.values())))
        found.append(f"{name}’s seeds agree on no source." if torn else f"{name} told no source clearly apart.")
    if not much:
        found.append(f"Most went to {order[0]}: {_from_to(name, order[0], runs)}.")
    some = _in_some_seeds(name, "Worth it", order, worth)
    return [*found, *some, *_in_some_seeds(name, "Not worth it", order[::-1], waste)]


def _in_some_seeds(name: str, what: str, order: Sequence[str], seeds: Mapping[str, Sequence[bool]]) -> list[str]:
    torn = sorted(
        (task for task in order if 0 < sum(seeds[task]) < len(seeds[task])), key=lambda task: -sum(seeds[task])
    )
    named = [f"{task} ({traced(f'{sum(seeds[task])} of {len(seeds[task])}', name)})" for task in torn]
    return [f"{what} in some seeds only: {_names(name, named, _TORN)}."] if named else []


def _course(run: RunRecord) -> Course | None:
    """Return the run's mixture over training, or None where it is not written."""
    first = run.history[0].get("mixture") if run.history else None
    if first is None or run.mixture is None:
        return None
    tasks = run.mixture["tasks"]
    if (run.recipe.get("mixture") or {}).get("unit") == "tokens":
        return Course(first, run.mixture["token_averaged"], run.mixture["final"])
    # The mixture is of examples; of tokens, long answers would have a larger share than was given to them.
    return Course(first, _normalised({task: float(tasks[task]["examples"]) for task in tasks}), run.mixture["final"])


def _among_sources(course: Course, targets: Collection[str]) -> Course:
    def kept(shares: Shares) -> Shares:
        return _normalised({task: share for task, share in shares.items() if task not in targets})

    return Course(kept(course.start), kept(course.given), kept(course.end))


def _normalised(amounts: Shares) -> Shares:
    total = sum(amounts.values())
    return {task: amount / total for task, amount in amounts.items()} if total else amounts


def _from_to(name: str, task: str, runs: Sequence[Course]) -> str:
    given, start = fmean(run.given.get(task, 0.0) for run in runs), fmean(run.start[task] for run in runs)
    now, then = traced(words.percent(given), name), traced(words.percent(start), name)
    return f"{now} of all draws from sources, {then} at the start"


def _own(name: str, courses: Sequence[Course], targets: Collection[str]) -> list[str]:
    if not any(task in targets for task in courses[0].start):
        return []
    shares = [sum(share for task, share in course.given.items() if task in targets) for course in courses]
    return [f"The targets’ own examples were {traced(words.percent(fmean(shares)), name)} of all draws."]


def _names(name: str, tasks: Sequence[str], limit: int = _NAMED) -> str:
    return words.together(tasks) if len(tasks) <= limit else words.listing(list(tasks), limit, tracing(name))


def _their(tasks: Sequence[str]) -> str:
    return "its" if len(tasks) == 1 else "their"
