"""Finding and reading data files: paths with variables, plain or gzipped, with errors that name the file."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from apportion._errors import ApportionError


def expand(path: str | Path) -> Path:
    """Return ``path`` with ``~`` and ``${NAME}`` filled in.

    ``APPORTION_DATA``, where it is not set, is the ``../shared/data`` nearest upwards from the current directory.

    Raises:
        ApportionError: A variable that is not set.
    """
    return Path(re.sub(r"\$\{(\w+)\}", lambda found: _variable(found[1], str(path)), str(path))).expanduser()


def _variable(name: str, path: str) -> str:
    if os.environ.get(name):
        return os.environ[name]
    if name == "APPORTION_DATA":
        here = Path.cwd()
        for folder in (here, *here.parents):
            candidate = folder.parent / "shared" / "data"
            if candidate.is_dir():
                return str(candidate)
        raise ApportionError(f"'{path}' needs APPORTION_DATA: set it to the data folder (no ../shared/data is near).")
    raise ApportionError(f"'{path}' needs the environment variable {name}, which is not set: export it first.")


def find(path: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the file at ``path``, or all files under it that end in one of ``suffixes``, sorted by relative path.

    Raises:
        ApportionError: Nothing there, or a folder without such files.
    """
    root = expand(path)
    if not root.exists():
        raise ApportionError(f"There is no file or folder '{root}': check the path.")
    if root.is_file():
        return [root]
    found = [p for p in root.rglob("*") if p.is_file() and p.name.endswith(tuple(suffixes)) and not hidden(p, root)]
    if not found:
        raise ApportionError(f"No {' or '.join(suffixes)} file is in '{root}' or below it.")
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def hidden(file: Path, root: Path) -> bool:
    """Say whether ``file``, or a folder between it and ``root``, is a hidden one."""
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def stem(file: Path) -> str:
    """Return the file's name without its format's endings: ``a.json.gz`` is ``a``."""
    name = file.name.removesuffix(".gz")
    return name[: name.rfind(".")] if "." in name[1:] else name


def read_text(file: Path) -> str:
    """Return the text of a plain or gzipped UTF-8 file.

    Raises:
        ApportionError: Unreadable, broken gzip or not UTF-8; the message names the file.
    """
    try:
        raw = file.read_bytes()
        if file.name.endswith(".gz"):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ApportionError(f"{file}:{line} is not UTF-8: save the file as UTF-8.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ApportionError(f"{file} is not a whole gzip file: fetch or compress it again.") from None
    except OSError as error:
        raise ApportionError(f"Cannot read {file}: {(error.strerror or str(error)).lower()}.") from None


def files_digest(files: Iterable[Path], root: Path) -> str:
    """Return a digest of the files' bytes and of their names relative to ``root``.

    Raises:
        ApportionError: A file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    base = root if root.is_dir() else root.parent
    for file in files:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise ApportionError(f"Cannot read {file}: {(error.strerror or str(error)).lower()}.") from None
        digest.update(f"{file.relative_to(base).as_posix()}\x00{len(raw)}\x00".encode("utf-8", "surrogateescape"))
        digest.update(raw)
    return digest.hexdigest()
