"""The writer of a run folder: one live run at a time, resumable, never half written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from apportion._errors import ApportionError
from apportion._yaml import dump_yaml, load_yaml
from apportion.runs.atomic import atomic_write_text, write_error
from apportion.runs.schema import dump_file, dump_line

_LOCK = ".lock"
HISTORY = "history.jsonl"


class RunFolder:
    """One run's folder, held for writing by this process until `close` or the process's end, however that comes.

    Attributes:
        path: The folder.
        recipe: The resolved recipe, as it stands in ``recipe.yaml``.
        resumed: True if the folder held an unfinished run of this recipe. Call `truncate_history` before appending:
            with the records a checkpoint knew, or 0 where there is no checkpoint.
    """

    def __init__(self, path: Path, recipe: dict[str, Any], resumed: bool, lock: BinaryIO) -> None:
        self.path = path
        self.recipe = recipe
        self.resumed = resumed
        self._lock = lock

    @classmethod
    def create(cls, path: str | Path, recipe: Mapping[str, Any]) -> RunFolder:
        """Make the folder, or open the unfinished run of the same recipe that it holds.

        Two recipes are the same if they are equal once resolved; no key is left out of account.

        Raises:
            ApportionError: The folder holds a finished run, a run of another recipe or something else, or another live
                run is writing to it; nothing in it has been touched.
        """
        path = Path(path)
        text = dump_yaml(recipe)
        plain = load_yaml(text, "The recipe")
        _check(path, plain)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from None
        lock = _take_lock(path)
        try:
            resumed = _check(path, plain)  # again: another run may have written here before the lock was ours
            for aside in path.glob(".*.tmp"):
                aside.unlink()
            if not resumed:
                atomic_write_text(path / "recipe.yaml", text)
            (path / "checkpoints").mkdir(exist_ok=True)
        except ApportionError:
            lock.close()
            raise
        except OSError as error:
            lock.close()
            raise write_error(path, error) from None
        return cls(path, plain, resumed, lock)

    @classmethod
    def reopen(cls, path: str | Path) -> RunFolder:
        """Hold the folder of a finished run, to add to it.

        Raises:
            ApportionError: It holds no finished run, or another live run is writing to it.
        """
        path = Path(path)
        if not (path / "summary.json").is_file():
            raise ApportionError(f"'{path}' holds no finished run: the command that began it goes on with it.")
        return cls(path, load_yaml((path / "recipe.yaml").read_text("utf-8"), "It"), True, _take_lock(path))

    @staticmethod
    def check(path: str | Path, recipe: Mapping[str, Any]) -> None:
        """Say at once what `create` would refuse, before data and model are loaded for it; touches nothing.

        Raises:
            ApportionError: As `create`.
        """
        path = Path(path)
        _check(path, load_yaml(dump_yaml(recipe), "The recipe"))
        if (path / _LOCK).exists():
            _take_lock(path).close()
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir():
            raise ApportionError(f"'{path}' cannot be a folder: '{there}' is a file. Give another one.")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ApportionError(f"'{path}' cannot be written: no permission in '{there}'. Give another folder.")

    @property
    def checkpoints_dir(self) -> Path:
        """The folder of ``step-N/`` checkpoints."""
        return self.path / "checkpoints"

    def append_history(self, record: Mapping[str, Any], name: str = HISTORY) -> None:
        """Add one record to ``history.jsonl``, or another file of lines, on the disk when this returns.

        Raises:
            ApportionError: The disk is full; no part of the line is left.
        """
        path = self.path / name
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, (dump_line(record) + "\n").encode("utf-8"))
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(before)
                raise write_error(path, error) from None

    def truncate_history(self, lines: int, name: str = HISTORY) -> None:
        """Keep the first ``lines`` records of a file, those that the checkpoint resumed from already knew.

        Raises:
            ApportionError: The history has fewer whole records than that.
        """
        path = self.path / name
        whole = (
            [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            if path.exists()
            else []
        )
        if len(whole) < lines:
            raise ApportionError(
                f"'{path}' has {len(whole)} records but the checkpoint was written after {lines}: "
                "the file was cut; resume from an older checkpoint or start in a new folder."
            )
        kept = b"".join(whole[:lines])
        if path.exists() and path.stat().st_size != len(kept):
            os.truncate(path, len(kept))

    def write_ledger(self, ledger: Mapping[str, Any]) -> None:
        """Write ``ledger.json``, atomically."""
        atomic_write_text(self.path / "ledger.json", dump_file(ledger))

    def write_mixture(self, mixture: Mapping[str, Any]) -> None:
        """Write ``mixture.json``, atomically."""
        atomic_write_text(self.path / "mixture.json", dump_file(mixture))

    def write_validation(self, validation: Mapping[str, Any]) -> None:
        """Write ``validation.json``, atomically, on one line a file: it has three numbers an example."""
        atomic_write_text(self.path / "validation.json", dump_line(validation) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``, atomically; a folder that has one is a finished run, so this comes last."""
        atomic_write_text(self.path / "summary.json", dump_file(summary))

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check(path: Path, recipe: dict[str, Any]) -> bool:
    """Return True for an unfinished run of ``recipe``, False for a new folder; anything else is an error."""
    try:
        return _is_held(path, recipe)
    except OSError as error:
        raise ApportionError(
            f"'{path}' cannot be read: {error.strerror or error}. Give another folder, or see to its permissions."
        ) from None


def _is_held(path: Path, recipe: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    if not path.is_dir():
        raise ApportionError(f"'{path}' is a file, not a folder: give a new folder for the run.")
    if not (path / "recipe.yaml").is_file():
        foreign = next((entry for entry in path.iterdir() if not _is_ours(entry.name)), None)
        if foreign is not None:
            raise ApportionError(
                f"'{path}' is not a run folder (it holds '{foreign.name}'): give a new or empty folder for the run."
            )
        return False
    if (path / "summary.json").exists():
        raise ApportionError(f"'{path}' holds a finished run: give a new folder, or delete this one to run it again.")
    try:
        held = load_yaml((path / "recipe.yaml").read_text("utf-8"), "It")
    except (UnicodeDecodeError, ApportionError):
        held = None
    if held != recipe:
        raise ApportionError(
            f"'{path}' holds an unfinished run of another recipe ({_difference(held, recipe)}): "
            "give a new folder, delete this one, or give the same recipe to resume it."
        )
    return True


def _is_ours(name: str) -> bool:
    # What a run that was killed before it wrote its recipe may have left.
    return name == _LOCK or (name.startswith(".recipe.yaml.") and name.endswith(".tmp"))


def _difference(held: object, asked: object, where: str = "") -> str:
    if isinstance(held, dict) and isinstance(asked, dict):
        for key in [*held, *asked]:
            if key not in held or key not in asked or held[key] != asked[key]:
                place = f"{where}.{key}" if where else str(key)
                return _difference(held.get(key), asked.get(key), place)
    return f"'{where}' is {held!r} there and {asked!r} here" if where else "it cannot be read as a recipe"


def _take_lock(path: Path) -> BinaryIO:
    try:
        lock = (path / _LOCK).open("ab")
    except OSError as error:
        raise write_error(path / _LOCK, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ApportionError(
            f"'{path}' is in use by another live run: wait for it, stop it, or give a new folder."
        ) from None
    except OSError as error:
        lock.close()
        raise ApportionError(f"'{path}' cannot be locked ({error.strerror}): put the run on a local disk.") from None
    return lock


def _write_all(file: BinaryIO, data: bytes) -> None:
    # An unbuffered write may stop short on a full disk without an error; the next write then raises it.
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
