"""Where the shipped tasks find their examples: below ``APPORTION_DATA``, or else, where they have one, by their Hub name.

The harness's own command reads these tasks too, with this folder as its ``--include_path``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset


def read(
    files: dict[str, str], field: str | None = None, hub: str | None = None, name: str | None = None, **_: object
) -> dict[str, Dataset]:
    """Return the splits of one task.

    Args:
        files: Each split's file below ``APPORTION_DATA``, JSON or JSON Lines.
        field: Where the rows stand in a JSON file.
        hub: The data set that is loaded where the first file is not there.
        name: Its configuration.

    Raises:
        FileNotFoundError: Neither is there.
    """
    root = os.environ.get("APPORTION_DATA")
    paths = {split: Path(root or "") / file for split, file in files.items()}
    if root and next(iter(paths.values())).is_file():
        return {split: Dataset.from_list(_rows(path, field)) for split, path in paths.items() if path.is_file()}
    if hub is None:
        missing = next(iter(files.values()))
        raise FileNotFoundError(f"it reads '{missing}' below the folder that APPORTION_DATA names, {root or 'not set'}")
    loaded: DatasetDict = load_dataset(hub, name)
    return dict(loaded)


def _rows(path: Path, field: str | None) -> list[dict[str, Any]]:
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    found: list[dict[str, Any]] = json.loads(text)[field] if field else json.loads(text)
    return found
