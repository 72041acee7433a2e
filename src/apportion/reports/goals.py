"""What a report says of targets in words: which they are, on how many examples they are measured, and the other tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from apportion.reports import words
from apportion.reports.traced import traced, tracing
from apportion.reports.view import Arm, View

_NAMED = 4
FEW = 30
"""Examples; the loss of a target that is measured on fewer is called uncertain."""


def toward(targets: Mapping[str, float], *arms: str) -> str:
    """Return the names of the targets, with their importance where that differs, traced to the arms if any are named."""
    alike = len(set(targets.values())) == 1
    say = tracing(*arms) if arms else str
    said = {name: say(f"{n:g}") for name, n in targets.items()}
    names = [name if alike else f"{name} ({importance})" for name, importance in said.items()]
    return words.together(names) if len(names) <= _NAMED else words.listing(names, _NAMED, say)


def measured(view: View) -> list[str]:
    """Return how well the targets' losses are known: on how many examples each, and to what standard error."""
    counts, errors = counts_of(view), {name: error_of(view.arms, name) for name in view.targets}
    if not counts:
        return []
    arms = [arm.name for arm in view.arms]
    if len(counts) <= _NAMED:
        parts = [f"{name} is measured on {_known(n, errors[name], *arms)}" for name, n in counts.items()]
    else:
        between = traced(f"{min(counts.values())} to {max(counts.values())} examples", *arms)
        parts = [f"Each target is measured on {between}"]
        parts += [f"{name} on {_known(n, errors[name], *arms)}" for name, n in _fewest(counts) if n < FEW]
    return [" ".join([f"{'; '.join(parts)}.", *too_few(counts)])]


def too_few(counts: Mapping[str, int]) -> list[str]:
    """Return what targets of few examples cannot tell; nothing where all have enough."""
    few = [name for name, n in _fewest(counts) if n < FEW]
    return (
        [f"So few examples of {words.together(few)} tell only large differences apart: more would help."] if few else []
    )


def counts_of(view: View) -> dict[str, int]:
    """Return how many examples each target is measured on; without those that no run says it of."""
    found = {}
    for name in view.targets:
        known = [(run.final.get("examples") or {}).get(name) for run in view.runs]
        if counts := [n for n in known if n is not None]:
            found[name] = counts[0]
    return found


def error_of(arms: Sequence[Arm], target: str) -> float | None:
    """Return the standard error of a target's loss, the mean over all finished runs; None where one does not know it."""
    errors = [(run.final.get("se") or {}).get(target) for arm in arms for run in arm.finished]
    known = [error for error in errors if error is not None]
    return fmean(known) if known and len(known) == len(errors) else None


def others(*arms: Arm) -> list[str]:
    """Return where the tasks that are no targets ended in these arms; nothing where all tasks are targets."""
    ended = [(arm.name, numbers) for arm in arms if (numbers := arm.numbers["final"].get("others"))]
    if not ended:
        return []
    said = ", ".join(f"{name} {traced(words.mean(numbers, words.loss), name)}" for name, numbers in ended)
    return [f"Other tasks at the end: {said}."]


def _known(n: int, error: float | None, *arms: str) -> str:
    off = "how far that is off nobody knows"
    sure = off if error is None else f"give or take {traced(words.loss(error), *arms)}"
    return f"{traced(words.several(n, 'example'), *arms)}, {sure}"


def _fewest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: item[1])[:_NAMED]
