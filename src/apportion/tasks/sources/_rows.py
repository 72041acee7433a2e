"""What the sources of rows share: a file is a task, or a field of each row names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from apportion._errors import ApportionError, nearest
from apportion.tasks.example import RawTask
from apportion.tasks.files import expand, files_digest, find, stem
from apportion.tasks.shapes import to_example
from apportion.tasks.sources._source import Source

Row = tuple[str, Mapping[str, object]]


class RowFiles(Source):
    """One file of rows, or a folder of them at any depth.

    Args:
        path: File or folder.
        task_field: The field of each row that names its task; left out, each file is a task, called by its name.
    """

    suffixes: ClassVar[tuple[str, ...]]

    path: str
    task_field: str | None = None

    def rows(self, file: Path) -> Iterator[Row]:
        """Yield the rows of a file, each with where it stands."""
        raise NotImplementedError

    def read(self) -> list[RawTask]:
        """Return the tasks in the order in which they first stand; see the base class."""
        return group(
            ((stem(file), str(file), self.rows(file)) for file in find(self.path, self.suffixes)), self.task_field
        )

    def digest(self) -> str:
        """Return a digest of the files' bytes."""
        return files_digest(find(self.path, self.suffixes), expand(self.path))


def group(parts: Iterable[tuple[str, str, Iterable[Row]]], task_field: str | None) -> list[RawTask]:
    """Gather rows into tasks.

    Args:
        parts: Name, origin and rows of each file or data set.
        task_field: The field that names a row's task; None makes each part a task.

    Raises:
        ApportionError: A row of no accepted shape, or without the task field.
    """
    tasks: dict[str, RawTask] = {}
    raw: list[RawTask] = []
    for name, origin, rows in parts:
        if task_field is None:
            raw.append(RawTask(name, origin, []))
        for i, (where, row) in enumerate(rows):
            example = to_example(row, where, f"{name}-{i}")
            if task_field is None:
                raw[-1].examples.append(example)
                continue
            task = _named(row, task_field, where)
            if task not in tasks:
                tasks[task] = RawTask(task, origin, [])
                raw.append(tasks[task])
            tasks[task].examples.append(example)
    return raw


def _named(row: Mapping[str, object], task_field: str, where: str) -> str:
    value = row.get(task_field)
    if value is None or not str(value).strip():
        raise ApportionError(f"{where} has no '{task_field}' to name its task{nearest(task_field, map(str, row))}.")
    return str(value)
