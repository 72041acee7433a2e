"""What the sources of rows share: how rows are gathered into tasks, and what becomes of bad ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from apportion._errors import ApportionError, nearest
from apportion.tasks.example import Example, RawTask
from apportion.tasks.findings import counted
from apportion.tasks.shapes import RowError, calls_tools, fields_read, instruction_of, to_example
from apportion.tasks.sources._formats import Row
from apportion.tasks.sources._source import Columns, Reading, Source

_Ours = Literal["prompt", "completion", "messages", "text", "instruction", "input", "output", "id"]
_SHOWN = 5


class RowSource(Source):
    """Rows with named fields; ``shapes.to_example`` says which ones are understood.

    Args:
        task_field: The field of each row that names its task; left out, each file or data set is a task.
        columns: Our name of a field to the data's, such as ``{prompt: question}``, applied to the rows that have it.
        on_bad: ``stop``: bad rows are an error, which counts them and shows the first five; ``skip``: they are left out,
            and a finding says as much.
    """

    task_field: str | None = None
    columns: dict[_Ours, str] = Field({})
    on_bad: Literal["stop", "skip"] = "stop"


def gather(parts: Iterable[tuple[str, str, Iterable[Row]]], source: RowSource, findings: Sequence[str] = ()) -> Reading:
    """Gather rows into tasks.

    Args:
        parts: Name, origin and rows of each file or data set.
        source: Says what names a row's task, what the fields are called, and what becomes of bad rows. Where its
            instructions stand apart, a row's ``instruction`` is the task's and not part of the prompt; all rows of a task
            have the same one.
        findings: What is known already about what was left out.

    Raises:
        ApportionError: A column that no row has; or, unless they are to be skipped, bad rows: of no accepted shape, without
            the task field, or where instructions stand apart without one, with another one than their task's, or with
            nothing else to ask.
    """
    gathering = _Gathering(source)
    for number, (name, origin, rows) in enumerate(parts):
        if source.task_field is None:
            gathering.tasks[number] = RawTask(name, origin, [])
        for i, (where, row) in enumerate(rows):
            gathering.take(row, where, number, f"{name}-{i}", origin)
    return gathering.done(findings)


def renamed(row: Mapping[str, object], columns: Mapping[_Ours, str]) -> Mapping[str, object]:
    """Return the row with our names of its fields, where it has those that ``columns`` maps them to."""
    taken: dict[str, str] = {ours: theirs for ours, theirs in columns.items() if theirs in row}
    rest = {field: value for field, value in row.items() if field not in taken.values()}
    return {**rest, **{ours: row[theirs] for ours, theirs in taken.items()}}


def columns_of(file: str, kind: str, rows: Iterable[Row], columns: Mapping[_Ours, str]) -> Columns:
    """Return what the rows of one file have, and which fields of the first row that fits are read."""
    fields: dict[str, None] = {}
    read: tuple[str, ...] = ()
    count = 0
    for _, row in rows:
        count += 1
        if isinstance(row, Mapping):
            fields.update(dict.fromkeys(map(str, row)))
            theirs: dict[str, str] = {ours: name for ours, name in columns.items() if name in row}
            read = read or tuple(theirs.get(field, field) for field in fields_read(renamed(row, columns)))
    return Columns(file, kind, tuple(fields), read, count)


class _Gathering:
    """The tasks so far, by the number of their part or by the name in their rows, and what was wrong with rows."""

    def __init__(self, source: RowSource) -> None:
        self.source = source
        self.tasks: dict[int | str, RawTask] = {}
        self.instructions: dict[int | str, str] = {}
        self.bad: list[RowError] = []
        self.count = 0
        self.calls = 0
        self.fields: dict[str, None] = {}

    def take(self, row: object, where: str, part: int, fallback_id: str, origin: str) -> None:
        """Add one row's example to its task, or the row to the bad ones."""
        try:
            self._take(row, where, part, fallback_id, origin)
        except RowError as error:
            self.count += 1
            if len(self.bad) < _SHOWN:
                self.bad.append(error)

    def _take(self, row: object, where: str, part: int, fallback_id: str, origin: str) -> None:
        if isinstance(row, RowError):
            raise row
        if not isinstance(row, Mapping):
            raise RowError(f"{where} must be an object with named fields, not {type(row).__name__}")
        fields = self._renamed(row)
        apart, task_field = self.source.instruction == "apart", self.source.task_field
        example = to_example(fields, where, fallback_id, apart)
        key = part if task_field is None else _named(row, task_field, where)
        task = self.tasks[key] if key in self.tasks else RawTask(str(key), origin, [])
        if apart:
            self.instructions[key] = _shared(fields, where, example, task.name, self.instructions.get(key, ""))
        self.tasks[key] = task
        task.examples.append(example)
        self.calls += example.messages is not None and calls_tools(fields)

    def _renamed(self, row: Mapping[str, object]) -> Mapping[str, object]:
        if self.source.columns:
            self.fields.update(dict.fromkeys(row))
        return renamed(row, self.source.columns)

    def done(self, findings: Sequence[str]) -> Reading:
        """Return the tasks, or raise what `gather` raises."""
        for ours, theirs in self.source.columns.items():
            if theirs not in self.fields:
                raise ApportionError(
                    f"'tasks.columns.{ours}' is '{theirs}', a field that no row has{nearest(theirs, self.fields)}."
                )
        said = list(findings)
        if self.count:
            first = f", the first {len(self.bad)}" if self.count > len(self.bad) else ""
            bad = f"{counted(self.count, 'bad row')}{first}: {'; '.join(error.what for error in self.bad)}"
            remedy = self.bad[0].remedy
            if self.source.on_bad == "stop":
                raise ApportionError(f"{bad}; {remedy}; or leave such rows out with 'tasks.on_bad: skip'.")
            for task in self.tasks.values():
                if not task.examples:
                    raise ApportionError(
                        f"Nothing is left of task '{task.name}' ({task.origin}) without {bad}; {remedy}."
                    )
            said.append(f"{bad}: left out.")
        if self.calls:
            said.append(f"{counted(self.calls, 'example')} with tool calls beside its text: the calls are left out.")
        tasks = [replace(task, instruction=self.instructions.get(key, "")) for key, task in self.tasks.items()]
        return Reading(tasks, tuple(said))


def _shared(row: Mapping[str, object], where: str, example: Example, task: str, before: str) -> str:
    """Return the row's instruction, which must be the one of the task's rows before it, where there are any."""
    text = instruction_of(row, where)
    if not text:
        raise RowError(
            f"{where} has no 'instruction' to stand apart{nearest('instruction', map(str, row))}",
            "add it, or leave out 'tasks.instruction'",
        )
    if before and text != before:
        raise RowError(
            f"{where} has another instruction than the rows of task '{task}' before it",
            "give a task one instruction, or say 'task_field: instruction' to make a task of each",
        )
    if not example.messages and not example.prompt.strip():
        raise RowError(
            f"{where} has an empty prompt once its instruction stands apart",
            "give it an input, or leave out 'tasks.instruction'",
        )
    return text


def _named(row: Mapping[str, object], task_field: str, where: str) -> str:
    if task_field not in row:
        raise RowError(f"{where} has no '{task_field}' to name its task{nearest(task_field, map(str, row))}")
    value = row[task_field]
    if value is None or not str(value).strip():
        raise RowError(f"{where} has an empty '{task_field}', which is to name its task", "name a task in each row")
    return str(value)
