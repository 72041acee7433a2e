"""Data sets of the Hugging Face Hub, or saved by ``datasets``, through that library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from apportion._errors import ApportionError, nearest
from apportion.tasks.files import expand
from apportion.tasks.network import hub
from apportion.tasks.sources._formats import Row
from apportion.tasks.sources._rows import RowSource, gather
from apportion.tasks.sources._source import Paths, Reading, paths_of

if TYPE_CHECKING:
    from datasets import Dataset


class Hub(RowSource):
    """One data set or several, each a task unless a field names the tasks; ``shapes.to_example`` says which rows fit.

    Args:
        path: A Hub name, a folder that ``save_to_disk`` wrote, or any path ``load_dataset`` takes; a list of them; or a
            mapping from task name to each. Without a mapping a task is called by the last part of its path.
        subset: The data set's configuration, where it has several.
        split: The split that is read; this library makes its own splits of it.
    """

    path: Paths
    subset: str | None = None
    split: str = "train"

    def read(self) -> Reading:
        """Return the tasks in the order given; see the base class."""
        parts = ((name, path, _rows(data, path)) for name, path, data in self._data)
        return gather(parts, self)

    def digest(self) -> str:
        """Return a digest of the rows; a Hub data set has to be at hand for that."""
        digest = hashlib.blake2b(digest_size=16)
        for name, _, data in self._data:
            digest.update(f"{name}\x00{len(data)}\x00".encode())
            for batch in data.with_format("arrow").iter(batch_size=1000):
                digest.update(repr(batch.to_pylist()).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    @cached_property
    def _data(self) -> list[tuple[str, str, Dataset]]:
        return [(name, path, self._load(path)) for name, path in self._named().items()]

    def _named(self) -> Mapping[str, str]:
        named: dict[str, str] = {}
        for given, path in paths_of(self.path):
            name = given or path.rstrip("/").rsplit("/", 1)[-1]
            if name in named:
                raise ApportionError(
                    f"Two tasks are called '{name}': {named[name]} and {path}; give 'tasks.path' as name: path."
                )
            named[name] = path
        return named

    def _load(self, path: str) -> Dataset:
        import datasets

        local = expand(path)
        try:
            if local.is_dir() and any((local / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
                data: Any = datasets.load_from_disk(str(local))
            else:
                name = str(local) if local.exists() else path
                with nullcontext() if local.exists() else hub():
                    data = datasets.load_dataset(name, self.subset)
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ApportionError(
                f"Cannot load the data set '{path}': check the name and the network, or give a local path ({reason})."
            ) from None
        if isinstance(data, datasets.DatasetDict):
            if self.split not in data:
                raise ApportionError(f"The data set '{path}' has no split '{self.split}'{nearest(self.split, data)}.")
            data = data[self.split]
        return data


def _rows(data: Dataset, path: str) -> Iterator[Row]:
    for i, row in enumerate(data):
        yield f"{path}, row {i}", row
