"""The table at the end of a reinforcement run, narrow enough for 80 columns."""

from __future__ import annotations

from rich.table import Table

from apportion.reports import words
from apportion.reports.measured import Point, spanned, used
from apportion.reports.rl.arms import after, before
from apportion.reports.rl.verdict import ALIKE, FELL, ROSE, UNKNOWN, changed, changes, generated, steps
from apportion.runs import RunRecord

_WORDS = {ROSE: "more right", FELL: "fewer right", ALIKE: "no gain", UNKNOWN: ""}


def reinforce_table(run: RunRecord) -> Table:
    """Return what a run of reinforcement answers before and after at each thinking budget, and what it generated for that.

    Whether that is more is said by the 95 % intervals, see `apportion.reports.rl.verdict.verdict`.
    """
    table = Table(caption=_caption(run), caption_justify="left", caption_style="dim")
    table.add_column("budget", justify="right", no_wrap=True)
    for name in ("right answers", "95 %", "tokens used", "cut off"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for first, last in changes(run):
        table.add_row(*_row(first, last))
    return table


def _row(first: Point, last: Point) -> list[str]:
    return [
        "no limit" if first.budget is None else f"{first.budget:,}",
        f"{words.loss(first.score)} → {words.loss(last.score)}",
        spanned(last.span) if last.span else "",
        f"{used(first.used)} → {used(last.used)}",
        words.percent(last.forced) if last.forced is not None else "",
        _WORDS[changed(first, last)],
    ]


def _caption(run: RunRecord) -> str:
    first, last = before(run), after(run)
    ends = [words.loss(line.area if line else None) for line in (first, last)]
    spent = f"{words.count(generated(run))} generated tokens in {words.several(steps(run), 'step')}"
    said = ["no gain: the 95 % intervals before and after overlap"] if _unsure(run) else []
    said.append(f"area under accuracy: {' → '.join(ends)}")
    return "\n".join([*said, f"{spent}, {words.clock(run.seconds)}"])


def _unsure(run: RunRecord) -> bool:
    return any(changed(*pair) == ALIKE for pair in changes(run))
