"""Progress bars that say what was spent, how the losses stand and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Show = Callable[[dict[str, Any], float], None]


class _Spent(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields.get('spent', 0):,} tokens", style="cyan")


class Bars:
    """One bar a run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def run(self, name: str) -> Show:
        """Add a bar and return what to call with each record."""
        bar = self._progress.add_task(name, total=1.0, spent=0, losses="reading tasks, building the model")
        latest: dict[str, Any] = {}

        def show(record: dict[str, Any], share: float) -> None:
            latest.update({key: value for key, value in record.items() if value is not None})
            shown = {"loss": latest.get("loss"), "macro": latest.get("macro"), "worst": latest.get("worst")}
            losses = "  ".join(f"{key} {value:.3f}" for key, value in shown.items() if value is not None)
            spent = record["spent"].get("train", {}).get("supervised", 0)
            self._progress.update(bar, completed=share, spent=spent, losses=losses)

        return show


@contextmanager
def bars() -> Iterator[Bars]:
    """Show bars on stderr for the block; on a pipe, nothing but their last state."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        _Spent(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        yield Bars(progress)
