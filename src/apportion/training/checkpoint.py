"""Checkpoints that are whole or not there: written aside, listed, synced, renamed; the newest valid one wins."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from apportion.runs.atomic import is_write_error, sync_folder, write_error

STATE = "apportion.pt"
MANIFEST = "files.json"


def aside_of(folder: Path, step: int) -> Path:
    """Return where a checkpoint lies while it is written."""
    return folder / f".step-{step}.tmp"


def write_checkpoint(folder: Path, step: int, write: Callable[[Path], None], keep: int | None) -> Path:
    """Write ``folder/step-N`` through ``write(aside)`` and drop all but the newest ``keep``; none where that is None.

    Raises:
        ApportionError: The disk is full or cannot be written; earlier checkpoints are untouched.
    """
    aside, final = aside_of(folder, step), folder / f"step-{step}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write(aside)
        files = {str(p.relative_to(aside)): p.stat().st_size for p in sorted(aside.rglob("*")) if p.is_file()}
        (aside / MANIFEST).write_text(json.dumps(files))
        for path in aside.rglob("*"):
            _sync_file(path)
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        sync_folder(folder)
    except Exception as error:
        if not is_write_error(error):
            raise
        failure = write_error(final, error)  # looks at the disk, so before space is freed
        shutil.rmtree(aside, ignore_errors=True)
        raise failure from None
    for old in _by_step(folder)[keep:] if keep is not None else ():
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files are all there at their full length."""
    return next((path for path in _by_step(folder) if _is_whole(path)), None)


def checkpoints_of(folder: Path) -> list[Path]:
    """Return all checkpoints whose files are there at their full length, the earliest first."""
    return [path for path in reversed(_by_step(folder)) if _is_whole(path)]


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Return Apportion's own part of a checkpoint: plain numbers, lists and tensors."""
    state: dict[str, Any] = torch.load(checkpoint / STATE, weights_only=True, map_location="cpu")
    return state


def _by_step(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("step-*") if p.name[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.name[5:]), reverse=True)


def _is_whole(checkpoint: Path) -> bool:
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return False
    files: dict[str, int] = json.loads(manifest.read_text())
    paths = {checkpoint / name: size for name, size in files.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _sync_file(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())
