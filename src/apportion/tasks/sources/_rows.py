"""What the sources of rows share: a file is a task, or a field of each row names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from apportion._errors import ApportionError, nearest
from apportion.tasks.example import Example, RawTask
from apportion.tasks.files import expand, files_digest, find, stem
from apportion.tasks.shapes import instruction_of, to_example
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
        parts = ((stem(file), str(file), self.rows(file)) for file in find(self.path, self.suffixes))
        return group(parts, self.task_field, self.instruction == "apart")

    def digest(self) -> str:
        """Return a digest of the files' bytes."""
        return files_digest(find(self.path, self.suffixes), expand(self.path))


def group(parts: Iterable[tuple[str, str, Iterable[Row]]], task_field: str | None, apart: bool) -> list[RawTask]:
    """Gather rows into tasks.

    Args:
        parts: Name, origin and rows of each file or data set.
        task_field: The field that names a row's task; None makes each part a task.
        apart: A row's ``instruction`` is the task's and not part of the prompt; all rows of a task have the same one.

    Raises:
        ApportionError: A row of no accepted shape, or without the task field; where instructions stand apart, a row
            without one, with another one than its task's, or with nothing else to ask.
    """
    raw: list[RawTask] = []
    instructions: list[str] = []
    places: dict[str, int] = {}
    for name, origin, rows in parts:
        if task_field is None:
            raw.append(RawTask(name, origin, []))
            instructions.append("")
        for i, (where, row) in enumerate(rows):
            example = to_example(row, where, f"{name}-{i}", apart)
            place = -1
            if task_field is not None:
                task = _named(row, task_field, where)
                place = places.setdefault(task, len(raw))
                if place == len(raw):
                    raw.append(RawTask(task, origin, []))
                    instructions.append("")
            raw[place].examples.append(example)
            if apart:
                instructions[place] = _shared(row, where, example, raw[place].name, instructions[place])
    return [replace(task, instruction=text) for task, text in zip(raw, instructions, strict=True)]


def _shared(row: Mapping[str, object], where: str, example: Example, task: str, before: str) -> str:
    """Return the row's instruction, which must be the one of the task's rows before it, where there are any."""
    text = instruction_of(row, where)
    if not text:
        raise ApportionError(
            f"{where} has no 'instruction' to stand apart{nearest('instruction', map(str, row))}: add it, or leave out "
            "'tasks.instruction'."
        )
    if before and text != before:
        raise ApportionError(
            f"{where} has another instruction than the rows of task '{task}' before it: give a task one instruction, or "
            "say 'task_field: instruction' to make a task of each."
        )
    if not example.messages and not example.prompt.strip():
        raise ApportionError(
            f"{where} has an empty prompt once its instruction stands apart: give it an input, or leave out "
            "'tasks.instruction'."
        )
    return text


def _named(row: Mapping[str, object], task_field: str, where: str) -> str:
    value = row.get(task_field)
    if value is None or not str(value).strip():
        raise ApportionError(f"{where} has no '{task_field}' to name its task{nearest(task_field, map(str, row))}.")
    return str(value)
