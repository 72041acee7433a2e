"""A collection as a table for the terminal: one line a task, its examples by split and its tokens by kind."""

from __future__ import annotations

from html import escape
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
    from rich.markup import escape as plain
    from rich.table import Table

    columns, rows, total = _rows(collection)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column("task", no_wrap=True)
    for name in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    for task, row in rows.items():
        drawn.add_row(plain(task), *(f"{row[name]:,}" for name in columns))
    drawn.add_section()
    drawn.add_row(f"all {len(rows):,}", *(f"{total[name]:,}" for name in columns), style="bold")
    # As wide as it has to be: left to itself it drops columns where a terminal is narrower than the names are long.
    drawn.width = Console(width=10_000).measure(drawn).maximum
    if "supervised" in columns:
        drawn.caption, drawn.caption_justify = "Tokens are those of the train split.", "left"
    return drawn


def html(collection: TaskCollection | EncodedCollection) -> str:
    """Return the same table as HTML for a notebook, with what was found in the data below it."""
    columns, rows, total = _rows(collection)
    lines = [
        _line("th", ["task", *columns]),
        *(_line("td", [task, *(f"{row[name]:,}" for name in columns)]) for task, row in rows.items()),
        _line("th", [f"all {len(rows):,}", *(f"{total[name]:,}" for name in columns)]),
    ]
    findings = "".join(f"<li>{escape(line)}</li>" for line in collection.findings)
    return f"<table>{''.join(lines)}</table>" + (f"<ul>{findings}</ul>" if findings else "")


def _line(kind: str, cells: list[str]) -> str:
    sides = ["left", *["right"] * (len(cells) - 1)]
    drawn = (
        f'<{kind} style="text-align: {side}">{escape(cell)}</{kind}>' for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(drawn)}</tr>"


def _rows(
    collection: TaskCollection | EncodedCollection,
) -> tuple[list[str], dict[str, dict[str, int]], dict[str, int]]:
    """Return the names of the columns, the numbers of each task, and their sums."""
    rows = {task.name: _numbers(task.name, collection) for task in collection}
    columns = [
        name for name in next(iter(rows.values())) if name != "test" or any(row["test"] for row in rows.values())
    ]
    return columns, rows, {name: sum(row[name] for row in rows.values()) for name in columns}


def _numbers(name: str, collection: TaskCollection | EncodedCollection) -> dict[str, int]:
    if isinstance(collection, TaskCollection):
        return {split: len(collection[name].split(split)) for split in SPLITS}
    task = collection[name]
    examples = {split: len(getattr(task, split)) for split in SPLITS}
    return examples | {kind: int(getattr(task.train, kind).sum()) for kind in TOKENS}
