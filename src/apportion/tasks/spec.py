"""The recipe's ``tasks`` block, and the one call that loads tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from apportion._config import Config, validate
from apportion._errors import ApportionError, nearest
from apportion.tasks.collection import TaskCollection, assemble
from apportion.tasks.example import RawTask
from apportion.tasks.sources import SOURCES, Source
from apportion.tasks.sources.infer import infer

# Part of every fingerprint: raise it when the same bytes would be read into other examples or other splits.
READING = 2


class TasksSpec(Config):
    """Where the tasks come from and how they are split; keys of the source itself stand beside these.

    Paths may hold ``~`` and ``${NAME}``; they are filled in when the tasks are read, so a spec can be written down again.

    Args:
        source: A source's name; left out, it is inferred from ``path``.
        names: Keep these tasks only, in the collection's order.
        validation: Share of distinct prompts to validate on.
        test: Share of distinct prompts to hold out for tests.
        max_length: Longest example to encode, in tokens.

    Raises:
        ApportionError: Unknown source or key, with the nearest right one, or a path from which no source follows.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    source: str | None = None
    names: tuple[str, ...] | None = None
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

    def reader(self) -> Source:
        """Return the source with its settings."""
        settings: dict[str, Any] = dict(self.model_extra or {})
        if self.source is None and "path" not in settings:
            raise ApportionError("'tasks' needs a 'path' to data, or a 'source' such as playground.")
        cls = SOURCES.get(self.source or infer(settings["path"]))
        known = [*cls.model_fields, *type(self).model_fields]
        for key in settings:
            if key not in cls.model_fields:
                raise ApportionError(f"Unknown key 'tasks.{key}'{nearest(key, known)}.")
        return validate(cls, settings, "tasks")

    def fingerprint(self) -> str:
        """Return a digest of the data's bytes and of all settings that decide examples and splits; parses nothing."""
        return self._fingerprint(self.reader())

    def _fingerprint(self, reader: Source) -> str:
        parts = (READING, reader.fingerprint(), self.names, self.validation, self.test)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def load(self) -> TaskCollection:
        """Read, clean and split the tasks.

        Raises:
            ApportionError: Missing or broken data, an unknown task under ``names``, a task too small to split, or one
                without the instruction that is to stand apart.
        """
        reader = self.reader()
        raw = reader.read()
        if self.names is not None:
            known = [task.name for task in raw]
            for name in self.names:
                if name not in known:
                    raise ApportionError(f"Unknown task '{name}' under 'tasks.names'{nearest(name, known)}.")
            raw = [task for task in raw if task.name in self.names]
        if reader.instruction == "apart":
            _check_instructions(raw)
        collection = assemble(raw, self.validation, self.test, self._fingerprint(reader))
        collection.spec = self
        return collection


def _check_instructions(raw: list[RawTask]) -> None:
    for task in raw:
        if task.examples and not task.instruction.strip():
            raise ApportionError(
                f"Task '{task.name}' ({task.origin}) has no instruction to stand apart from its prompts: give it one, or "
                "leave out 'tasks.instruction'."
            )


def load_tasks(
    path: str | Path | None = None,
    *,
    source: str | None = None,
    validation: float = 0.05,
    test: float = 0.0,
    **settings: object,
) -> TaskCollection:
    """Read tasks from a file, a folder, a Hub data set or the playground, and split them.

    Args:
        path: File, folder or Hub name; the playground needs none.
        source: A source's name; left out, it is inferred from the path.
        validation: Share of distinct prompts to validate on.
        test: Share of distinct prompts to hold out for tests.
        **settings: ``names``, and the source's own settings, such as ``group_by="category"``.

    Raises:
        ApportionError: Unknown source or setting, missing or broken data, or a task too small to split.
    """
    values: Mapping[str, object] = {
        "source": source,
        **({} if path is None else {"path": str(path)}),
        "validation": validation,
        "test": test,
        **{key: value for key, value in settings.items() if value is not None},
    }
    return validate(TasksSpec, values, "tasks").load()
