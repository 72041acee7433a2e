"""Finding and reading data files: paths with variables, plain or gzipped, with errors that name the file."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from apportion._errors import ApportionError


def expand(path: str | Path) -> Path:
    """Return ``path`` with ``~`` and ``${NAME}`` filled in.

    Raises:
        ApportionError: A variable that is not set.
    """
    return Path(re.sub(r"\$\{(\w+)\}", lambda found: _variable(found[1], str(path)), str(path))).expanduser()


def _variable(name: str, path: str) -> str:
    if os.environ.get(name):
        return os.environ[name]
    raise ApportionError(f"'{path}' needs the environment variable {name}, which is not set: export it first.")


def located(path: str | Path, otherwise: str = "") -> Path:
    """Return ``path`` filled in, where a file or folder is.

    Args:
        path: The path.
        otherwise: What else the path may have been meant for, to end the error message.

    Raises:
        ApportionError: Nothing there, or out of reach.
    """
    root = expand(path)
    try:
        root.stat()
    except PermissionError as error:
        raise unreadable(root, error) from None
    except (OSError, ValueError):
        raise ApportionError(f"There is no file or folder '{root}': check the path{otherwise}.") from None
    return root


def walk(root: Path) -> list[Path]:
    """Return the file ``root``, or all files under that folder but hidden ones, sorted by relative path.

    Raises:
        ApportionError: A folder that cannot be read.
    """
    if root.is_file():
        return [root]
    found = []
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    try:
        return sorted((p for p in found if p.is_file()), key=lambda p: p.relative_to(root).as_posix())
    except PermissionError as error:
        raise unreadable(error.filename, error) from None


def _refuse(error: OSError) -> None:
    raise unreadable(error.filename, error)


def find(path: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the file at ``path``, or all files under it of the kinds ``suffixes``, sorted by relative path.

    Raises:
        ApportionError: Nothing there, out of reach, or a folder without such files.
    """
    root = located(path)
    found = [file for file in walk(root) if root.is_file() or kind(file) in suffixes]
    if not found:
        raise ApportionError(f"No {' or '.join(suffixes)} file is in '{root}' or below it.")
    return found


def kind(file: Path) -> str:
    """Return the suffix that says what the file holds, gzipped or not: ``.jsonl`` for ``a.jsonl.gz``."""
    return Path(file.name.removesuffix(".gz")).suffix


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
        raise unreadable(file, error) from None


def unreadable(path: str | Path, error: OSError) -> ApportionError:
    """Return the error to raise where the file or folder ``path`` cannot be read."""
    return ApportionError(f"Cannot read {path}: {(error.strerror or str(error)).lower()}.")


def first_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a plain or gzipped file as far as they are text, so that a look at the first ones is cheap.

    Raises:
        ApportionError: The file cannot be read.
    """
    opened = gzip.open if file.name.endswith(".gz") else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", errors="replace") as stream:
            yield from stream
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return  # who reads the file in full says what is wrong with it
    except OSError as error:
        raise unreadable(file, error) from None


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
            raise unreadable(file, error) from None
        digest.update(f"{file.relative_to(base).as_posix()}\x00{len(raw)}\x00".encode("utf-8", "surrogateescape"))
        digest.update(raw)
    return digest.hexdigest()
