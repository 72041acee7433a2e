"""A collection as a table for the terminal: one line a task, its examples by split and its tokens by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.tasks.collection import SPLITS, TaskCollection
from apportion.tasks.encoded import EncodedCollection

if TYPE_CHECKING:
    from rich.table import Table

TOKENS = ("supervised", "processed")


def table(collection: TaskCollection | EncodedCollection) -> Table:
    """Return the collection as a table that keeps every name whole and every task on one line.

    The columns are the examples of each split, and, once it is encoded, the supervised and processed tokens to train on.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = {task.name: _numbers(task.name, collection) for task in collection}
    columns = [
        name for name in next(iter(rows.values())) if name != "test" or any(row["test"] for row in rows.values())
    ]
    total = {name: sum(row[name] for row in rows.values()) for name in columns}
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column("task", no_wrap=True)
    for name in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    for task, row in rows.items():
        drawn.add_row(escape(task), *(f"{row[name]:,}" for name in columns))
    drawn.add_section()
    drawn.add_row(f"all {len(rows):,}", *(f"{total[name]:,}" for name in columns), style="bold")
    # As wide as it has to be: left to itself it drops columns where a terminal is narrower than the names are long.
    drawn.width = Console(width=10_000).measure(drawn).maximum
    if "supervised" in columns:
        drawn.caption, drawn.caption_justify = "Tokens are those of the train split.", "left"
    return drawn


def _numbers(name: str, collection: TaskCollection | EncodedCollection) -> dict[str, int]:
    if isinstance(collection, TaskCollection):
        return {split: len(collection[name].split(split)) for split in SPLITS}
    task = collection[name]
    examples = {split: len(getattr(task, split)) for split in SPLITS}
    return examples | {kind: int(getattr(task.train, kind).sum()) for kind in TOKENS}
