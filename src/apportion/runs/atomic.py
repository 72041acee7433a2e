"""Files that are either the old ones or the new ones, whatever happens in between."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from apportion._errors import ApportionError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOTHING = 2**16
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors and tokenizers, written in Rust, say it


def is_write_error(error: Exception) -> bool:
    """Return whether this says that a write failed: torch raises a RuntimeError, tokenizers a bare Exception."""
    return isinstance(error, OSError | RuntimeError) or _OS_ERROR.search(str(error)) is not None


def write_error(path: Path, error: Exception) -> ApportionError:
    """Return the sentence for a write that failed: which file, why, what to do."""
    number = _number(path, error)
    if number in _FULL:
        return ApportionError(f"The disk is full: '{path}' could not be written. Free some space and start again.")
    if number is None:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return ApportionError(f"'{path}' could not be written in full: check the disk's space and limits ({first}).")
    return ApportionError(f"'{path}' could not be written: {os.strerror(number)}.")


def _number(path: Path, error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    said = _OS_ERROR.search(str(error))
    if said:
        return int(said[1])
    # torch says that a write fell short, not why.
    there = next((place for place in path.absolute().parents if place.exists()), None)
    disk = os.statvfs(there) if there else None
    return errno.ENOSPC if disk and disk.f_bavail * disk.f_frsize < _NOTHING else None


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` aside, fsync it and rename it to ``path``; readers see the old file or the new one, never a part.

    Raises:
        ApportionError: The disk is full or the folder cannot be written; the old file is untouched, no other is left.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # where nothing could be written, there may be nothing that can be taken away
            aside.unlink()
        raise write_error(path, error) from None


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
