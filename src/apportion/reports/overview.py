"""What stands above several comparisons in one report: a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apportion.reports import words
from apportion.reports.gains import compared
from apportion.reports.page import Page, title
from apportion.reports.view import Arm, View


@dataclass(frozen=True)
class Line:
    """A comparison: its headline, and the loss of its best baseline and of the arm against it, each with the arm's name."""

    page: Page
    baseline: tuple[str, str]
    best: tuple[str, str]
    tokens: str


def overview(pages: Sequence[Page]) -> list[Line]:
    """Return a line for each comparison."""
    return [_line(page) for page in pages]


def titled(views: Mapping[str, View]) -> str:
    """Return the page's title."""
    return title(next(iter(views.values()))) if len(views) == 1 else words.several(len(views), "comparison")


def _line(page: Page) -> Line:
    view, base = page.view, page.view.baseline
    arm = compared(view)
    share = arm.numbers["tokens_to_best_of"][base.name][view.metric] if arm and base else None
    reached = words.mean(share, words.percent) if share else "never" if arm else words.NONE
    if share and share["reached"] < share["of"]:
        reached += f", in {share['reached']} of {share['of']} seeds"
    return Line(page, _ended(base, view), _ended(arm, view), reached)


def _ended(arm: Arm | None, view: View) -> tuple[str, str]:
    if arm is None or not arm.numbers["final"][view.metric]:
        return "", words.NONE
    error = arm.numbers["se"][view.metric]
    text = words.mean(arm.numbers["final"][view.metric], words.loss)
    return arm.name, text if error is None else f"{text} ± {words.loss(error)}"
