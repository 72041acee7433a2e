"""Was the money well spent: each task's tokens against the baseline's, beside what its loss gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import Frame, axes, picture_of, shorten
from apportion.reports.gains import changes, compared
from apportion.reports.labels import Box, Name, written
from apportion.reports.svg import mark, tag
from apportion.reports.view import Arm, View

_ALIKE = 0.05  # a task whose tokens differ by less than this share got neither more nor fewer
_FAR = 100.0  # so many times the tokens, or so small a part of them, is the edge of the chart
_WIDE = 4.0  # multiples further apart than this are told apart on a logarithmic axis only
_NAMED = 5


@dataclass(frozen=True)
class Spending:
    """A task's supervised tokens under an arm and under the baseline, means over seeds, and how much its loss gained."""

    task: str
    tokens: float
    before: float
    gain: float

    @property
    def extra(self) -> float:
        """Tokens more than under the baseline."""
        return self.tokens - self.before

    @property
    def ratio(self) -> float:
        """Tokens as a multiple of the baseline's, kept within the chart."""
        if not self.before:
            return _FAR
        return min(max(self.tokens / self.before, 1 / _FAR), _FAR)


def spendings(view: View, arm: Arm) -> list[Spending]:
    """Return every task that tokens were drawn from, in the order of `changes`."""
    if view.baseline is None:
        return []
    mine, theirs = _tokens(arm), _tokens(view.baseline)
    known = {change.task: -change.gap for change in changes(view, arm)}
    drawn = [task for task in known if mine.get(task) or theirs.get(task)]
    return [Spending(task, mine.get(task, 0.0), theirs.get(task, 0.0), known[task]) for task in drawn]


def _tokens(arm: Arm) -> dict[str, float]:
    found = [run.mixture["tasks"] for run in arm.finished if run.mixture]
    tasks = dict.fromkeys(task for run in found for task in run)
    return {task: fmean(run[task]["supervised"] if task in run else 0 for run in found) for task in tasks}


def split(spent: Sequence[Spending]) -> tuple[list[Spending], list[Spending]]:
    """Return the tasks that got clearly more tokens than under the baseline, and those that got clearly fewer."""
    clear = [s for s in spent if abs(s.extra) > _ALIKE * s.before]
    return [s for s in clear if s.extra > 0], [s for s in clear if s.extra < 0]


def said_of_money(view: View) -> list[str]:
    """Return the sentences beside the chart: what tasks with more and with fewer tokens gained, and what a thousand did."""
    arm, base = compared(view), view.baseline
    if arm is None or base is None:
        return []
    spent = spendings(view, arm)
    sides = [(how, side) for how, side in zip(("more", "fewer"), split(spent), strict=True) if side]
    if not sides:
        return [f"{arm.name} gave every task about the tokens that {base.name} gave it."] if spent else []
    gained = [
        f"that got {how} tokens than under {base.name} ({len(side)}) {_gained(side)} on average" for how, side in sides
    ]
    ways = {
        "more": "given went with {} loss in the task that got them",
        "fewer": "taken away with {} loss in the task that lost them",
    }
    bought = [ways[how].format(_bought(side)) for how, side in sides]
    return [
        f"Tasks {'; those '.join(gained)}.",
        f"Each thousand tokens {', each thousand '.join(bought)}.",
        "Tasks learn from each other’s tokens too, so a change is not the work of a task’s own tokens alone.",
    ]


def _gained(spent: Sequence[Spending]) -> str:
    mean = fmean(s.gain for s in spent)
    return f"{'gained' if mean >= 0 else 'lost'} {words.loss(abs(mean))}"


def _bought(spent: Sequence[Spending]) -> str:
    worth = worth_of_a_thousand(spent)
    return f"{words.loss(abs(worth))} {'less' if worth >= 0 else 'more'}"


def worth_of_a_thousand(spent: Sequence[Spending]) -> float:
    """Return all gains over all tokens given or taken, a thousand of them."""
    return 1000 * sum(s.gain for s in spent) / sum(abs(s.extra) for s in spent)


def money_chart(view: View) -> Markup | None:
    """Draw each task's gain in loss against its tokens as a multiple of the baseline's; None where nothing can be drawn."""
    arm, base = compared(view), view.baseline
    spent = spendings(view, arm) if arm else []
    if arm is None or base is None or not spent:
        return None
    ratios, gains = [s.ratio for s in spent], [s.gain for s in spent]
    low, high = min(*gains, 0.0), max(*gains, 0.0)
    margin = 0.12 * (high - low) or 0.05
    x = (min(*ratios, 0.8) / 1.3, max(*ratios, 1.25) * 1.3)
    frame = Frame(x, (low - margin, high + margin), width=560, height=420, log_x=x[1] / x[0] > _WIDE)
    left, top, right, bottom = frame.box
    names = (f"tokens as a multiple of {base.name}’s", f"loss below {base.name}’s")
    title = f"Gain in loss of each task under {arm.name} against its tokens"
    return picture_of(
        frame,
        title,
        axes(frame, *names, lambda times: f"×{times:g}", words.tick),
        tag("line", x1=frame.px(1.0), x2=frame.px(1.0), y1=top, y2=bottom, cls="goal"),
        tag("line", x1=left, x2=right, y1=frame.py(0.0), y2=frame.py(0.0), cls="goal"),
        *[_mark(s, arm, base, frame) for s in spent],
        *_names(spent, frame, arm),
    )


def _mark(spent: Spending, arm: Arm, base: Arm, frame: Frame) -> Markup:
    tokens = f"{words.count(spent.tokens)} tokens, {words.count(spent.before)} under {base.name}"
    text = f"{spent.task}: {tokens}, loss {words.signed(-spent.gain)}"
    dot = mark(arm.mark, frame.px(spent.ratio), frame.py(spent.gain), 4.4, cls=f"dot {arm.colour}")
    return tag("g", tag("title", text), dot)


def _names(spent: Sequence[Spending], frame: Frame, arm: Arm) -> list[Markup]:
    """Name the tasks whose loss changed most."""
    most = sorted(spent, key=lambda s: -abs(s.gain))[:_NAMED]
    names = [Name(shorten(s.task, 16), (frame.px(s.ratio), frame.py(s.gain)), arm.colour) for s in most]
    dots = [(frame.px(s.ratio), frame.py(s.gain)) for s in spent if s not in most]
    return written(names, Box(*frame.box), [Box(x - 3, y - 3, x + 3, y + 3) for x, y in dots])
