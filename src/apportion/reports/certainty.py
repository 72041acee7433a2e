"""How sure a gap between two arms is, in words: its error, the tasks that make it, and what it may hang on."""

from __future__ import annotations

from apportion.reports import words
from apportion.reports.estimates import Part, estimate
from apportion.reports.gap import Gap
from apportion.reports.traced import traced, tracing
from apportion.reports.view import Arm, View


def why_not(gap: Gap | None, *arms: Arm) -> list[str]:
    """Return what a gap between two arms rests on that may not be called one: a task, a few examples, one seed."""
    found = []
    if gap is not None and gap.alone:
        rest = estimate([part for part in gap.parts if part.task != gap.alone])
        number = traced(f"{rest.mean:.3f} ± {rest.error:.3f}".replace("-", "−"), *(arm.name for arm in arms))
        sure = "more than chance explains" if rest.beyond else "no more than chance explains"
        found.append(f"Without task {gap.alone} the gap is {number}, {sure}.")
    if gap is not None and gap.handful:
        tasks = words.listing(list(dict.fromkeys(gap.handful)), say=tracing(*(arm.name for arm in arms)))
        found.append(f"Without the few examples that count most (of {tasks}), the others do not show it.")
    if gap is not None and gap.seeds == 1:
        found.append("One seed only: how far luck moves these numbers is not known.")
    return found


def uncertainty(gap: Gap | None, view: View, *arms: Arm) -> list[str]:
    """Return the gap with its error, and the tasks that make it."""
    if gap is None:
        return []
    names = [arm.name for arm in arms]
    seeds, examples = words.several(gap.seeds, "seed"), words.several(gap.examples, "validation example")
    counted = traced(f"{seeds} and {examples}", *names) if gap.examples else f"{traced(seeds, *names)} alone"
    number = traced(f"{abs(gap.estimate.mean):.3f} ± {gap.estimate.error:.3f}", *names)
    found = [f"The gap is {number} in {view.loss_name}; ± is its standard error over {counted}."]
    if len(gap.parts) > 1 and (gap.estimate.beyond or gap.alone):
        shares = [(part, traced(words.percent(gap.share(part)), *names)) for part in _most(gap)]
        makers = [f"{part.task} {share}{on_examples(part, *arms)}" for part, share in shares]
        found.append(f"Its largest parts: {', '.join(makers)}.")
    return found


def _most(gap: Gap) -> list[Part]:
    """Return the tasks that make half of the gap, one to three of them."""
    found: list[Part] = []
    for part in gap.makers[:3]:
        found.append(part)
        if sum(map(gap.share, found)) >= 0.5:
            break
    return found


def on_examples(part: Part, *arms: Arm) -> str:
    """Return on how many examples a task is measured, in brackets; nothing where the runs do not say."""
    counted = traced(words.several(len(part.examples), "validation example"), *(arm.name for arm in arms))
    return f" ({counted})" if part.examples else ""
