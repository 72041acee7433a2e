"""The file of a selection: Parquet, one row an example, with what it was made by in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apportion._errors import ApportionError
from apportion.runs.atomic import write_error

KEPT, OUTSIDE, UNSCORED = "within the limit", "beyond the limit", "not scored"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.large_string()),
        pa.field("task", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("rank", pa.int64()),
        pa.field("kept", pa.bool_()),
        pa.field("reason", pa.string()),
    ]
)
_NEEDED = ("id", "task", "kept")
_KEY = b"apportion"


@dataclass(frozen=True)
class Scored:
    """A selection as it was written: its rows, and what it says of itself (empty for a file of another tool)."""

    path: Path
    table: pa.Table
    about: Mapping[str, Any]

    def kept(self) -> np.ndarray:
        """Return which rows are kept, (n,) bool."""
        return np.asarray(self.table.column("kept").to_numpy()).astype(bool)

    @property
    def reasons(self) -> list[str]:
        """Each example's reason."""
        if "reason" in self.table.column_names:
            return [str(reason) for reason in self.table.column("reason").to_pylist()]
        return [KEPT if kept else OUTSIDE for kept in self.table.column("kept").to_pylist()]


def write_selection(path: Path, tasks: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write a selection task by task, atomically.

    Args:
        path: The file.
        tasks: Each task's columns: ``id``, ``task``, ``score`` (NaN where there is none), ``rank`` (from 1; 0 for none),
            ``kept`` and ``reason``.
        about: What it was made by, and what it cost.

    Raises:
        ApportionError: The file cannot be written.
    """
    aside = path.with_name(f".{path.name}.tmp")
    said = {_KEY: json.dumps({"schema": 1, **about}).encode()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(aside, _SCHEMA.with_metadata(said)) as writer:
            for columns in tasks:
                scores, ranks = np.asarray(columns["score"]), np.asarray(columns["rank"])
                arrays = [
                    pa.array(columns["id"], pa.large_string()),
                    pa.array(columns["task"], pa.string()),
                    pa.array(scores, pa.float64(), mask=np.isnan(scores)),
                    pa.array(ranks, pa.int64(), mask=ranks == 0),
                    pa.array(columns["kept"], pa.bool_()),
                    pa.array(columns["reason"], pa.string()),
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise write_error(path, error) from None


def read_selection(path: Path) -> Scored:
    """Read a selection.

    Raises:
        ApportionError: Missing, no Parquet, or without the columns ``id``, ``task`` and ``kept``.
    """
    if not path.is_file():
        raise ApportionError(f"There is no selection '{path}': make one with 'apportion select', or check the path.")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        first = str(error).strip().splitlines()[0]
        raise ApportionError(f"'{path}' is no selection: it cannot be read as Parquet ({first}).") from None
    for column in _NEEDED:
        if column not in table.column_names:
            raise ApportionError(f"'{path}' is no selection: it has no column '{column}'.")
    kept = table.column("kept").type
    if not pa.types.is_boolean(kept):
        raise ApportionError(f"'{path}' is no selection: its column 'kept' is {kept}, not true or false.")
    said = (table.schema.metadata or {}).get(_KEY)
    return Scored(path, table, json.loads(said) if said else {})
