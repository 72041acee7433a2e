"""What every source is: a frozen config that reads raw tasks and can say, cheaply, whether its data changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from apportion._config import Config
from apportion.tasks.example import RawTask

Paths = str | tuple[str, ...] | dict[str, str]


@dataclass(frozen=True)
class Reading:
    """What a source has read: the tasks, and sentences about what it left out of them."""

    tasks: list[RawTask]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """What the rows of one file have: the file, its kind, all of its fields, those that are read, and how many rows."""

    file: str
    format: str
    fields: tuple[str, ...]
    read: tuple[str, ...]
    rows: int


def paths_of(path: Paths) -> list[tuple[str, str]]:
    """Return each path after the name that a mapping gives it, "" where it is not a mapping."""
    if isinstance(path, Mapping):
        return list(path.items())
    return [("", one) for one in ((path,) if isinstance(path, str) else path)]


class Source(Config):
    """Where tasks come from. Its fields are the source's own keys of the recipe's ``tasks`` block.

    Attributes:
        instruction: ``prompt``: what a task asks for is part of its prompts; ``apart``: it leaves them and stands on the
            task, ``RawTask.instruction``, the same for all of its examples.
    """

    instruction: Literal["prompt", "apart"] = "prompt"

    def read(self) -> Reading:
        """Return the tasks as the data has them, not yet cleaned or split.

        Raises:
            ApportionError: Missing, unreadable or misshapen data; the message names file and line.
        """
        raise NotImplementedError

    def columns_found(self) -> list[Columns]:
        """Return what each file's rows have, by a look at all of them; nothing of a source that is no files of rows."""
        return []

    def digest(self) -> str:
        """Return a digest of the data's bytes, without parsing them where that is possible."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Return a digest of data and settings; where the data lies does not matter."""
        # Left out where it changes nothing, so that data read before this key was there are still the same data.
        left_out = {"path"} if self.instruction == "apart" else {"path", "instruction"}
        settings = self.model_dump_json(exclude=left_out)
        return hashlib.blake2b(f"{type(self).__name__}{settings}{self.digest()}".encode(), digest_size=16).hexdigest()
