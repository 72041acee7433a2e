"""Files of rows, of several kinds side by side or of one only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import ClassVar, NamedTuple

from apportion._errors import ApportionError
from apportion.tasks.files import expand, files_digest, find, kind, stem, walk
from apportion.tasks.findings import counted
from apportion.tasks.sources._formats import READERS, Row
from apportion.tasks.sources._rows import RowSource, columns_of, gather
from apportion.tasks.sources._source import Columns, Paths, Reading, paths_of


class _Part(NamedTuple):
    """What becomes one task, unless a field names the tasks."""

    name: str
    files: list[Path]
    root: Path


class RowFiles(RowSource):
    """A file of rows, a folder of them at any depth, or several of either; ``shapes.to_example`` says which rows fit.

    Each file is a task, called by its name; text files, a text each, are one task a folder, called by the folder.

    Args:
        path: File or folder; a list of them; or a mapping from task name to each, which is then one task.
    """

    suffixes: ClassVar[tuple[str, ...]]

    path: Paths

    def read(self) -> Reading:
        """Return the tasks in the order in which they first stand; see the base class."""
        parts = [(part.name, str(part.files[0]), self._rows(part)) for part in self._parts()]
        return gather(parts, self, self._left_out())

    def columns_found(self) -> list[Columns]:
        """Return what the rows of each file have, in the tasks' order."""
        return [
            columns_of(str(file), kind(file), self._read(file), self.columns)
            for part in self._parts()
            for file in part.files
        ]

    def digest(self) -> str:
        """Return a digest of the files' bytes and of the names of their tasks."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self._parts():
            digest.update(
                f"{part.name}\x00{files_digest(part.files, part.root)}\x00".encode("utf-8", "surrogateescape")
            )
        return digest.hexdigest()

    def _parts(self) -> list[_Part]:
        parts: list[_Part] = []
        texts: dict[Path, list[Path]] = {}
        for name, path in paths_of(self.path):
            root, files = expand(path), find(path, self.suffixes)
            if name:
                parts.append(_Part(name, files, root))
                continue
            for file in files:
                folder = file.parent
                if kind(file) != ".txt":
                    parts.append(_Part(stem(file), [file], root))
                elif folder in texts:
                    texts[folder].append(file)
                else:
                    texts[folder] = [file]
                    parts.append(_Part(folder.resolve().name or "texts", texts[folder], root))
        for files in texts.values():
            if len(files) == 1 and len(parts) > 1:
                raise ApportionError(
                    f"{files[0]} is the only text file of its folder, and one text is no task: put it elsewhere, or "
                    "name the files to read in a list under 'tasks.path'."
                )
        return parts

    def _rows(self, part: _Part) -> Iterator[Row]:
        return chain.from_iterable(self._read(file) for file in part.files)

    def _read(self, file: Path) -> Iterator[Row]:
        suffix = kind(file)
        if suffix not in READERS and len(self.suffixes) < len(READERS):
            suffix = self.suffixes[0]  # a file of another name, said to be of this kind
        if suffix not in self.suffixes:
            raise ApportionError(
                f"'{file}' is no {' or '.join(self.suffixes)} file: leave out 'tasks.source', or say the right one."
            )
        return READERS[suffix](file)

    def _left_out(self) -> list[str]:
        files = [file for _, path in paths_of(self.path) for file in walk(expand(path)) if kind(file) in READERS]
        others = [file for file in files if kind(file) not in self.suffixes]
        if not others or len(others) == len(files):  # a single file is what it is said to be
            return []
        kinds = " or ".join(self.suffixes)
        return [f"{counted(len(others), 'file')} of another kind than {kinds} (such as {others[0]}): left out."]


class Files(RowFiles):
    """Files of any kind: JSON Lines, JSON lists, CSV, Parquet and plain text."""

    suffixes: ClassVar[tuple[str, ...]] = tuple(READERS)


class Jsonl(RowFiles):
    """JSON Lines and JSON lists only."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json")


class Csv(RowFiles):
    """Comma-separated files only, whose first line names the fields; conversations do not fit in these."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)


class Parquet(RowFiles):
    """Parquet files only."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
