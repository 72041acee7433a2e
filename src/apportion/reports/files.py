"""The runs that a report's numbers are worked out from, one by one, with links to their files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from apportion.reports.view import Arm, View
from apportion.runs import RunRecord

_FILES = (
    "summary.json",
    "mixture.json",
    "history.jsonl",
    "ledger.json",
    "validation.json",
    "evaluation.json",
    "curve.json",
    "rollouts.jsonl",
    "recipe.yaml",
)


@dataclass(frozen=True)
class Row:
    """A run: its last value of the loss that arms are judged by, and its files as (name, link)."""

    run: RunRecord
    loss: float | None
    files: list[tuple[str, str]]


def runs(view: View, folder: Path) -> list[tuple[Arm, list[Row]]]:
    """Return the runs of each arm, with links to the files that are there, relative to ``folder``, where the page stands."""
    return [
        (arm, [Row(run, run.final.get(view.metric), links_of(run.path, folder)) for run in arm.runs])
        for arm in view.arms
    ]


def links_of(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Return name and link of each file that a report names of a run in ``path``, as seen from ``folder``."""
    there = [name for name in _FILES if (path / name).is_file()]
    way = os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")
    return [(name, quote(f"{way}/{name}")) for name in there]
