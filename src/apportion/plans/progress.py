"""Progress that says what was spent, how the losses stand and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from apportion.runs import numbers

# Called with how many of how many things are done.
Told = Callable[[int, int], None]

Show = Callable[[dict[str, Any], float], None]

# Below this many columns the training loss is left out, so that a bar stays on one line.
_WIDE = 100
# What is shown of reinforcement: means over the roll-outs since the record before.
_REINFORCED = ("reward", "correct", "thinking")
_WAITING = "reading tasks and model"


class Runs(Protocol):
    """What shows the progress of one run after another."""

    def run(self, name: str) -> Show:
        """Announce a run and return what to call with each of its records."""
        ...


class Bars:
    """One bar a run."""

    def __init__(self, progress: Progress, losses: tuple[str, ...]) -> None:
        self._progress = progress
        self._losses = losses

    def run(self, name: str) -> Show:
        """Fill the bars before, add one and return what to call with each record."""
        self.finish()
        bar = self._progress.add_task(name, total=1.0, spent="", losses=_WAITING)
        latest: dict[str, Any] = {}

        def show(record: dict[str, Any], share: float) -> None:
            if "scored" in record:  # before training
                self._progress.update(bar, losses="scoring the pool, {} of {} parts".format(*record["scored"]))
                return
            latest.update({key: value for key, value in record.items() if value is not None})
            self._progress.update(bar, completed=share, spent=_spent(record), losses=_said(latest, self._losses))

        return show

    def finish(self) -> None:
        """Fill the bars: the last tokens of a budget may be too few for one more example."""
        for bar in self._progress.task_ids:
            self._progress.update(bar, completed=1.0)


class Lines:
    """One plain line a tenth of the budget and one at the end, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Callable[[], None] | None = None

    def run(self, name: str) -> Show:
        """End the run before and return what to call with each record."""
        self.finish()
        latest: dict[str, Any] = {}
        tenths = -1

        def say(share: float) -> None:
            nonlocal tenths
            if int(share * 10) > tenths:
                tenths = int(share * 10)
                losses = _said(latest, ("loss", "macro", "worst"))
                text = f"{name}: {share:.0%}  {_spent(latest)} tokens  {losses}"
                self._console.print(text, soft_wrap=True, markup=False, highlight=False)

        def show(record: dict[str, Any], share: float) -> None:
            if "scored" in record:
                return
            latest.update({key: value for key, value in record.items() if value is not None})
            # Rounded to 100 % a line would say that the run has ended.
            say(min(share, 0.99))
            self._last = lambda: say(1.0)

        return show

    def finish(self) -> None:
        """Print the last run's end: the last tokens of a budget may be too few for one more example."""
        if self._last is not None:
            self._last()
        self._last = None


@contextmanager
def progress() -> Iterator[Runs]:
    """Show progress on stderr for the block: bars in a terminal, a few lines on a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = Lines(console)
        yield lines
        lines.finish()
        return
    wide = console.width >= _WIDE
    shown = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=20 if wide else 10),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[spent]}", style="cyan", table_column=Column(no_wrap=True, justify="right")),
        TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        console=console,
        refresh_per_second=4,
    )
    bars = Bars(shown, ("loss", "macro", "worst") if wide else ("macro", "worst"))
    shown.start()
    try:
        yield bars
        bars.finish()
    except BaseException:
        # What went wrong is said next; a bar that stopped would stand between it and the command.
        shown.live.transient = all(task.completed == 0 for task in shown.tasks)
        raise
    finally:
        shown.stop()


@contextmanager
def counted(name: str, what: str) -> Iterator[Told]:
    """Show on stderr how many of a known number of things are done, in a terminal; yields what to call with both."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, of: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + what),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        bar = shown.add_task(name, total=1)
        yield lambda done, of: shown.update(bar, completed=done, total=of)


def _spent(record: dict[str, Any]) -> str:
    return numbers.count(record.get("generated", record["spent"].get("train", {}).get("supervised", 0)))


def _said(latest: dict[str, Any], losses: tuple[str, ...]) -> str:
    if latest.get("target") is not None:
        # A run with targets is judged by them; what is left is the other tasks, not all tasks with the targets again.
        losses = ("target", "others", *(key for key in losses if key == "loss"))
    if "curve" in latest:
        losses = (*_REINFORCED, *losses)
    return " ".join(f"{key} {numbers.loss(latest[key])}" for key in losses if latest.get(key) is not None)
