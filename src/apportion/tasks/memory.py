"""Rows in memory, kept as files of the cache, so that whatever reads tasks from files reads them too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from apportion._errors import ApportionError
from apportion.tasks import cache


def kept(rows: object, name: str, cache_dir: Path | None = None) -> str:
    """Write rows as JSON Lines under their digest, unless they are there already, and return the file's path.

    Args:
        rows: Mappings from field to value, such as JSON can hold.
        name: The task's name, for error messages.
        cache_dir: Folder of the cache; None is $APPORTION_CACHE, or ~/.cache/apportion.

    Raises:
        ApportionError: No rows, a value that JSON cannot hold, or a cache that cannot be written.
    """
    if not isinstance(rows, Iterable) or isinstance(rows, bytes | Mapping):
        raise ApportionError(
            f"Task '{name}' is {type(rows).__name__}: give a path, or a list of rows with named fields."
        )
    text = "".join(f"{_line(row, i, name)}\n" for i, row in enumerate(rows)).encode("utf-8", "surrogatepass")
    if not text:
        raise ApportionError(f"Task '{name}' has no rows: add some or leave it out.")
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    file = cache.folder(cache_dir).absolute() / f"rows-{digest}.jsonl"
    if not cache.valid(file):
        cache.write(file, lambda aside: aside.write_bytes(text))
    return str(file)


def _line(row: object, i: int, name: str) -> str:
    if not isinstance(row, Mapping):
        raise ApportionError(
            f"Row {i} of task '{name}' is {type(row).__name__}: it must be a mapping from field to value, such as "
            "{'prompt': ..., 'completion': ...}."
        )
    try:
        return json.dumps(dict(row))
    except (TypeError, ValueError, RecursionError) as error:
        raise ApportionError(f"Row {i} of task '{name}' holds what JSON cannot: {error}.") from None
