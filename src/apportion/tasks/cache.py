"""The cache's files: written aside, renamed, and trusted only while their digest holds."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from apportion._errors import ApportionError


def folder(cache_dir: str | Path | None) -> Path:
    """Return the cache's folder, made if missing: ``cache_dir``, $APPORTION_CACHE, or ~/.cache/apportion.

    Raises:
        ApportionError: It cannot be made.
    """
    chosen = cache_dir or os.environ.get("APPORTION_CACHE") or Path("~/.cache/apportion")
    path = Path(chosen).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ApportionError(
            f"Cannot make the cache folder {path} ({error.strerror}): set APPORTION_CACHE to another one."
        ) from None
    return path


def valid(file: Path) -> bool:
    """Say whether ``file`` is there and is, byte for byte, what was written."""
    beside = _digest_file(file)
    if not file.is_file() or not beside.is_file():
        return False
    return beside.read_bytes() == _digest(file)


def write(file: Path, fill: Callable[[Path], object]) -> None:
    """Write ``file`` and its digest so that a reader sees both whole or takes neither.

    Args:
        file: Where the result goes.
        fill: Writes the content to the path it is given.

    Raises:
        ApportionError: The folder cannot be written to, or is full.
    """
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as aside:
            content, digest = Path(aside) / "content", Path(aside) / "digest"
            fill(content)
            digest.write_bytes(_digest(content))
            content.replace(file)
            digest.replace(_digest_file(file))
    except OSError as error:
        raise ApportionError(
            f"Cannot write to the cache {file.parent} ({error.strerror or error}): free it, or set APPORTION_CACHE."
        ) from None


def _digest_file(file: Path) -> Path:
    return file.with_name(file.name + ".digest")


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()
