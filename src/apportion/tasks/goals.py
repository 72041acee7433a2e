"""The recipe's ``targets`` block, and the data of a run: its tasks and the targets that have data of their own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from apportion._errors import ApportionError, nearest
from apportion.tasks.collection import Goals, TaskCollection
from apportion.tasks.spec import SourceSpec, TasksSpec


class TargetsSpec(SourceSpec):
    """What the model should be good at: data of its own, read as tasks are, or tasks of the collection by name.

    Attributes:
        tasks: Names of tasks that are the targets, as a list, or as a mapping to their importance.
        importance: How much each target counts, by name; 1 for one that is not named.
        train: How often the train part of each target may be seen, in epochs; 0 for never, and then there is none.
        validation: Share of a target's distinct prompts that losses are measured on, where the rest may be trained on; half
            of it is for methods to steer by, half for the report.
        overlap: Whether the tasks ``drop`` or ``keep`` prompts that stand in a target.

    Raises:
        ApportionError: Neither data nor tasks or both, a key of the one with the other, or an importance that is not above
            zero.
    """

    block: ClassVar[str] = "targets"

    tasks: tuple[str, ...] | None = None
    importance: dict[str, float] = Field({})
    train: float = Field(0.0, ge=0.0)
    validation: float = Field(0.5, gt=0.0, lt=1.0)
    overlap: Literal["drop", "keep"] = "drop"

    @model_validator(mode="before")
    @classmethod
    def _weighed(cls, values: Any) -> Any:  # noqa: ANN401
        if isinstance(values, dict) and isinstance(values.get("tasks"), Mapping):
            if values.get("importance"):
                raise ApportionError("'targets.tasks' gives each task's importance: leave out 'targets.importance'.")
            for name, given in values["tasks"].items():
                if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
                    raise ApportionError(f"'targets.tasks.{name}' is {given!r}: an importance is a number above 0.")
            return {**values, "tasks": list(values["tasks"]), "importance": dict(values["tasks"])}
        return values

    @field_validator("tasks")
    @classmethod
    def _named(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("name at least one task, or leave 'targets' out")
        return value

    @field_validator("importance")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        for name, importance in value.items():
            if not importance > 0 or math.isinf(importance):
                raise ValueError(f"an importance must be more than 0, unlike that of '{name}'")
        return value

    @model_validator(mode="after")
    def _either(self) -> TargetsSpec:
        if self.tasks is None:
            if self.source is None and "path" not in (self.model_extra or {}):
                given = "".join(f"; there is only '{key}'" for key in self.model_extra or {})
                raise ApportionError(
                    f"'targets' needs a 'path' to data, a 'source', or 'tasks' of the collection by name{given}."
                )
            self.reader()
            return self
        fields = type(self).model_fields
        of_data = ("source", "names", "train", "validation", "overlap")
        own = [key for key in of_data if getattr(self, key) != fields[key].default]
        for key in [*own, *(self.model_extra or {})]:
            if key not in fields and key != "path":
                raise ApportionError(f"Unknown key 'targets.{key}'{nearest(key, fields)}.")
            raise ApportionError(f"'targets.{key}' is for targets with data of their own, not with 'targets.tasks'.")
        self._check_importance(self.tasks)
        return self

    def _check_importance(self, names: tuple[str, ...]) -> None:
        for name in self.importance:
            if name not in names:
                raise ApportionError(f"Unknown target '{name}' under 'targets.importance'{nearest(name, names)}.")

    def weights(self, names: tuple[str, ...]) -> dict[str, float]:
        """Return the importance of each target, by name."""
        return {name: self.importance.get(name, 1.0) for name in names}

    def fingerprint(self) -> str:
        """Return a digest of the data's bytes and of all settings that decide examples and splits; parses nothing."""
        settings = (self.names, self.train > 0 and self.validation, self.overlap)
        return hashlib.blake2b(f"{self.reader().fingerprint()}{settings}".encode(), digest_size=16).hexdigest()

    def goals(self) -> tuple[Goals, tuple[str, ...]]:
        """Read the targets; return them, and sentences about what was left out of them.

        Raises:
            ApportionError: Missing or broken data, an unknown target, or one with a single prompt.
        """
        reading = self.reader().read()
        raw = reading.tasks if self.names is None else self.chosen(reading.tasks, self.names, "names")
        self._check_importance(tuple(task.name for task in raw))
        return Goals(raw, self.validation if self.train else 1.0, self.overlap == "keep"), reading.findings


class Loads(Protocol):
    """What encoded tasks are made from."""

    def fingerprint(self) -> str:
        """Return a digest of the data's bytes and of all settings that decide examples and splits."""

    def load(self) -> TaskCollection:
        """Read, clean and split the tasks."""


@dataclass(frozen=True)
class DataSpec:
    """The data of a run: the tasks, and after them the targets that have data of their own, as tasks too."""

    tasks: TasksSpec
    targets: TargetsSpec | None

    def fingerprint(self) -> str:
        """Return a digest of the data's bytes and of all settings that decide examples and splits; parses nothing."""
        own = self.tasks.fingerprint()
        if self.targets is None or self.targets.tasks is not None:
            return own
        return hashlib.blake2b(f"{own}{self.targets.fingerprint()}".encode(), digest_size=16).hexdigest()

    def load(self) -> TaskCollection:
        """Read, clean and split both.

        Raises:
            ApportionError: As `TasksSpec.load` and `TargetsSpec.goals`.
        """
        if self.targets is None or self.targets.tasks is not None:
            return self.tasks.load()
        goals, findings = self.targets.goals()
        collection = self.tasks.load(goals)
        collection.findings[:0] = findings
        collection.fingerprint = self.fingerprint()
        return collection
