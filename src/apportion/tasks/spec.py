"""The recipe's ``tasks`` block, and the one call that loads tasks."""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from apportion._config import Config, validate
from apportion._errors import ApportionError, nearest
from apportion.tasks.collection import Goals, TaskCollection, assemble
from apportion.tasks.example import RawTask
from apportion.tasks.files import expand
from apportion.tasks.memory import kept
from apportion.tasks.sources import SOURCES, Source
from apportion.tasks.sources._source import paths_of
from apportion.tasks.sources.infer import infer

# Sources that read nothing: they write their own data.
_GENERATED = ("playground", "scratchpad")

# Part of every fingerprint: raise it when the same bytes would be read into other examples or other splits.
READING = 2


class SourceSpec(Config):
    """A block of the recipe that names a source of tasks; keys of the source itself stand beside its own.

    Paths may hold ``~`` and ``${NAME}``; they are filled in when the tasks are read, so a spec can be written down again.

    Attributes:
        block: The block's name in a recipe.
        source: A source's name; left out, it is inferred from ``path``.
        names: Keep these tasks only, in the source's order.

    Raises:
        ApportionError: Unknown source or key, with the nearest right one, or a path from which no source follows.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    block: ClassVar[str]

    source: str | None = None
    names: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _generated(cls, values: Any) -> Any:  # noqa: ANN401
        # The sources that are also paths, as for `apportion tasks playground`; a folder of that name is ./playground.
        if isinstance(values, dict) and values.get("path") in _GENERATED and values.get("source") is None:
            return {key: value for key, value in values.items() if key != "path"} | {"source": values["path"]}
        return values

    def reader(self) -> Source:
        """Return the source with its settings."""
        settings: dict[str, Any] = dict(self.model_extra or {})
        if self.source is None and "path" not in settings:
            raise ApportionError(f"'{self.block}' needs a 'path' to data, or a 'source' such as playground.")
        if "path" in settings:
            _check_path(settings["path"], self.block)
        cls = SOURCES.get(self.source or infer(settings["path"]))
        known = [*cls.model_fields, *type(self).model_fields]
        for key in settings:
            if key not in cls.model_fields:
                raise ApportionError(f"Unknown key '{self.block}.{key}'{nearest(key, known)}.")
        return validate(cls, settings, self.block)

    def chosen(self, raw: list[RawTask], names: tuple[str, ...], key: str) -> list[RawTask]:
        """Return the tasks called ``names``, which the block's ``key`` gives.

        Raises:
            ApportionError: One that is not there.
        """
        known = [task.name for task in raw]
        for name in names:
            if name not in known:
                raise ApportionError(f"Unknown task '{name}' under '{self.block}.{key}'{nearest(name, known)}.")
        return [task for task in raw if task.name in names]

    def keep_out(self, out: Path) -> None:
        """Refuse a folder for results among the data, which would be read as data the next time.

        Raises:
            ApportionError: ``out`` is in a folder that ``path`` names, or is that folder.
        """
        for _, path in paths_of((self.model_extra or {}).get("path", ())):
            folder = expand(path)
            if out.resolve().is_relative_to(folder.resolve()):
                raise ApportionError(
                    f"'{out}' is inside the data, '{folder}', and would be read as data: give a folder elsewhere."
                )


class TasksSpec(SourceSpec):
    """Where the tasks come from and how they are split; keys of the source itself stand beside these.

    Attributes:
        split_with: Tasks that these are split together with, by their inputs alone, as where instructions stand apart: the
            same examples are trained on as in a run of all of them. What a hypernetwork's teachers are given.
        validation: Share of distinct prompts to validate on.
        test: Share of distinct prompts to hold out for tests.
        max_length: Longest example to encode, in tokens.
    """

    block: ClassVar[str] = "tasks"

    split_with: tuple[str, ...] | None = None
    validation: float = Field(0.05, gt=0.0, lt=1.0)
    test: float = Field(0.0, ge=0.0, lt=1.0)
    max_length: int = Field(512, ge=2)

    @model_validator(mode="after")
    def _strict(self) -> TasksSpec:
        if self.validation + self.test >= 1.0:
            raise ApportionError(
                f"'tasks.validation' and 'tasks.test' sum to {self.validation + self.test:g}: leave some to train on."
            )
        self.reader()
        return self

    def fingerprint(self) -> str:
        """Return a digest of the data's bytes and of all settings that decide examples and splits; parses nothing."""
        return self._fingerprint(self.reader())

    def _fingerprint(self, reader: Source) -> str:
        parts: tuple[object, ...] = (READING, reader.fingerprint(), self.names, self.validation, self.test)
        if self.split_with is not None:
            parts = (*parts, self.split_with)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def load(self, goals: Goals | None = None) -> TaskCollection:
        """Read, clean and split the tasks.

        Args:
            goals: Targets with data of their own, which come after the tasks.

        Raises:
            ApportionError: Missing or broken data, an unknown task under ``names``, a task too small to split, or one
                without the instruction that is to stand apart.
        """
        reader = self.reader()
        reading = reader.read()
        raw = reading.tasks
        if self.split_with is not None:
            raw = self.chosen(raw, self.split_with, "split_with")
            inputs = reader if reader.instruction == "apart" else reader.model_copy(update={"instruction": "apart"})
            raw = _keyed(raw, self.chosen(inputs.read().tasks, self.split_with, "split_with"))
        elif self.names is not None:
            raw = self.chosen(raw, self.names, "names")
        if reader.instruction == "apart":
            _check_instructions(raw)
        collection = assemble(raw, self.validation, self.test, self._fingerprint(reader), goals)
        if self.split_with is not None and self.names is not None:
            kept = [collection[name] for name in collection.names if name in (*self.names, *collection.targets)]
            targets, collection = (
                collection.targets,
                TaskCollection(kept, collection.findings, collection.fingerprint),
            )
            collection.targets = targets
        collection.findings[:0] = reading.findings
        collection.spec = self
        return collection


def _check_path(path: object, block: str) -> None:
    values = path.values() if isinstance(path, dict) else path if isinstance(path, list | tuple) else [path]
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise ApportionError(
            f"'{block}.path' is {reprlib.repr(path)}: it must be a path, a list of paths, or a mapping from task name to "
            "path."
        )
    if isinstance(path, dict) and not all(isinstance(name, str) and name.strip() for name in path):
        raise ApportionError(f"'{block}.path' is {reprlib.repr(path)}: each path needs the name of its task.")


def _keyed(raw: list[RawTask], inputs: list[RawTask]) -> list[RawTask]:
    """Return tasks that are split by their inputs, of which those that are blank are left out, as where they are prompts."""
    keyed = []
    for task, apart in zip(raw, inputs, strict=True):
        keys = apart.keys or [example.prompt for example in apart.examples]
        kept = [
            (example, key)
            for example, key, bare in zip(task.examples, keys, apart.examples, strict=True)
            if bare.messages or bare.prompt.strip()
        ]
        keyed.append(replace(task, examples=[example for example, _ in kept], keys=[key for _, key in kept]))
    return keyed


def _check_instructions(raw: list[RawTask]) -> None:
    for task in raw:
        if task.examples and not task.instruction.strip():
            raise ApportionError(
                f"Task '{task.name}' ({task.origin}) has no instruction to stand apart from its prompts: give it one, or "
                "leave out 'tasks.instruction'."
            )


Rows = Iterable[Mapping[str, Any]]


def load_tasks(
    path: str | Path | Sequence[str | Path] | Mapping[str, str | Path | Rows] | None = None,
    *,
    source: str | None = None,
    validation: float = 0.05,
    test: float = 0.0,
    **settings: object,
) -> TaskCollection:
    """Read tasks from files, folders, rows in memory, a Hub data set, the playground or the scratchpad, and split them.

    Rows in memory are written to a file in the cache, $APPORTION_CACHE, so that a run can name and read them again.

    Args:
        path: File, folder or Hub name; a list of them; a mapping from task name to each or to rows, such as
            ``{"sums": [{"prompt": "1+1", "completion": "2"}, ...]}``; what is generated needs none.
        source: A source's name; left out, it is inferred from the path.
        validation: Share of distinct prompts to validate on.
        test: Share of distinct prompts to hold out for tests.
        **settings: ``names``, and the source's own settings, such as ``columns={"prompt": "question"}``.

    Raises:
        ApportionError: Unknown source or setting, missing or broken data, or a task too small to split.
    """
    values: Mapping[str, object] = {
        "source": source,
        **({} if path is None else {"path": plain_path(path)}),
        "validation": validation,
        "test": test,
        **{key: value for key, value in settings.items() if value is not None},
    }
    return validate(TasksSpec, values, "tasks").load()


def plain_path(path: object) -> object:
    """Return paths as text, as a recipe has them, and rows as the path of the file that now holds them."""
    if isinstance(path, os.PathLike):
        return os.fspath(path)
    if isinstance(path, Mapping):
        files = (str, os.PathLike)
        return {name: plain_path(one) if isinstance(one, files) else kept(one, str(name)) for name, one in path.items()}
    if isinstance(path, list | tuple):
        if any(isinstance(one, Mapping) for one in path):
            raise ApportionError("Rows need the name of their task, as in {'name': rows}.")
        return [plain_path(one) for one in path]
    return path
