"""A collection as a tree for the terminal: tasks, examples by split, tokens by kind, findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.tasks.collection import SPLITS, TaskCollection
from apportion.tasks.encoded import EncodedCollection
from apportion.tasks.findings import counted

if TYPE_CHECKING:
    from rich.tree import Tree


def tree(collection: TaskCollection | EncodedCollection) -> Tree:
    """Return the collection as a tree; token counts are there once it is encoded."""
    from rich.markup import escape
    from rich.tree import Tree

    counts = collection.counts() if isinstance(collection, EncodedCollection) else _examples(collection)
    root = Tree(f"[bold]{counted(len(counts), 'task')}[/bold], {_line(_total(counts))}")
    for name, splits in counts.items():
        branch = root.add(f"[bold]{escape(name)}[/bold]  {_line(_total({name: splits}))}")
        if collection[name].instruction:
            branch.add(f"instruction: {escape(collection[name].instruction)}")
        for split, kinds in splits.items():
            if kinds["examples"]:
                branch.add(f"{split}: {_line(kinds)}")
    if collection.findings:
        found = root.add("[bold]found in the data[/bold]")
        for finding in collection.findings:
            found.add(escape(finding))
    return root


def _examples(tasks: TaskCollection) -> dict[str, dict[str, dict[str, int]]]:
    return {task.name: {split: {"examples": len(task.split(split))} for split in SPLITS} for task in tasks}


def _total(counts: dict[str, dict[str, dict[str, int]]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for splits in counts.values():
        for kinds in splits.values():
            for kind, n in kinds.items():
                total[kind] = total.get(kind, 0) + n
    return total


def _line(kinds: dict[str, int]) -> str:
    nouns = {"examples": "example", "supervised": "supervised token", "processed": "processed token"}
    return ", ".join(counted(n, nouns[kind]) for kind, n in kinds.items())
