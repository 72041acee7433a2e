"""Suite E: the library's own sources of mixed quality, and pairs of its clean skills as targets."""

from __future__ import annotations

from typing import Any

from apportion.tasks import TasksSpec
from apportion.tasks.sources.playground import solve
from studies.targets.skills import Pairs
from studies.targets.suites import GIVEN, Suite

PAIRS = {"quality-reverse-sort": ("reverse", "sort"), "quality-next-swap": ("next", "swap")}
# Of the sources best by construction: those with less of the targets than this get nothing.
LEAST = 0.1


def quality(names: tuple[str, ...]) -> Suite:
    """Twenty nameless sources; what is known of them is read off their examples."""
    sources = read(suite="quality")
    skills = read(suite="skills", names=names)
    taken = {prompt for pairs in sources.values() for prompt, _ in pairs}
    targets = {name: pairs[:GIVEN] for name, pairs in skills.items()}
    unseen = {name: [pair for pair in pairs[GIVEN:] if pair[0] not in taken] for name, pairs in skills.items()}
    clean = {name: share(pairs, names) for name, pairs in sources.items()}
    best = {name: part**2 for name, part in clean.items() if part >= LEAST}
    bad = tuple(name for name, pairs in sources.items() if share(pairs) < 0.5)
    return Suite(sources, targets, unseen, {name: part / sum(best.values()) for name, part in best.items()}, bad)


def share(pairs: Pairs, skills: tuple[str, ...] = ()) -> float:
    """Return the share of examples that are right, and of one of ``skills`` where any are named."""
    right = [p for p, a in pairs if solve(p.split()[0], p) == a and (not skills or p.split()[0] in skills)]
    return len(right) / len(pairs)


def read(**settings: Any) -> dict[str, Pairs]:  # noqa: ANN401
    """Return the tasks of the playground's suite by name."""
    spec = TasksSpec(source="playground", **settings)
    tasks = spec.reader().read().tasks
    kept = [task for task in tasks if spec.names is None or task.name in spec.names]
    return {task.name: [(example.prompt, example.completion) for example in task.examples] for task in kept}
