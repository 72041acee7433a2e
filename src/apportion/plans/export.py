"""A finished run's mixture handed on: its shares, and a folder in which another trainer goes on with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion.budget import Budget
from apportion.exports import EXPORTERS
from apportion.exports.notes import notes_on
from apportion.exports.readme import readme
from apportion.exports.shares import TaskShare, fixed_block, shares_of
from apportion.runs import RunRecord, is_run, read_comparison, read_run
from apportion.runs.atomic import write_error

Rows = Iterator[Mapping[str, Any]]


@dataclass(frozen=True)
class Exported:
    """A run's mixture, as it was handed on.

    Attributes:
        path: The folder; None where nothing was written.
        shares: What each task gave the run.
        block: The recipe's ``mixture`` block that gives the same shares, as YAML.
        command: What to run in the folder; "" where nothing was written.
        notes: Sentences on what the trainer cannot express.
    """

    path: Path | None
    shares: tuple[TaskShare, ...]
    block: str
    command: str = ""
    notes: tuple[str, ...] = ()


def shares_in(run: str | Path) -> Exported:
    """Return the shares of a finished run, and the block that gives them; writes nothing.

    Raises:
        ApportionError: No run, a comparison, or a run that is not finished.
    """
    record = finished(run)
    assert record.mixture is not None
    shares = shares_of(record.mixture)
    return Exported(None, shares, fixed_block(shares, record.recipe["mixture"].get("max_epochs")))


def finished(path: str | Path) -> RunRecord:
    """Read a run that is finished.

    Raises:
        ApportionError: No run folder, a comparison, or a run that has not ended.
    """
    path = Path(path)
    if not path.exists():
        raise ApportionError(f"There is no folder '{path}': give the folder of a finished run.")
    if not is_run(path):
        raise _no_run(path)
    run = read_run(path)
    if not run.finished or run.mixture is None or run.ledger is None:
        raise ApportionError(f"The run '{path}' is not finished: start it again as before, and it goes on to its end.")
    return run


def _no_run(path: Path) -> ApportionError:
    try:
        arms = read_comparison(path)
    except ApportionError:
        return ApportionError(f"'{path}' is not a run folder: it has no recipe.yaml.")
    runs = [run.path for arm in arms.values() for run in arm]
    return ApportionError(f"'{path}' is a comparison of {len(runs)} runs: give one of them, such as '{runs[0]}'.")


def export_run(run: str | Path, to: str, out: str | Path) -> Exported:
    """Write a folder in which another trainer trains on a finished run's mixture.

    The folder is there whole or not at all: the config, ``data/`` with each task's train split, and a README.

    Args:
        run: The run folder; it is only read.
        to: The trainer's name.
        out: A new folder.

    Raises:
        ApportionError: No finished run, an unknown trainer, one that cannot train on these data, data that changed since,
            or a folder that is taken.
    """
    exporter, out = EXPORTERS.build({"type": to}, "trainer"), Path(out)
    found, record = shares_in(run), finished(run)
    _check_out(out)
    from apportion.plans.handing import hand_over

    handed, rows, told = hand_over(exporter, record, found.shares, out)
    written = exporter.write(handed)
    notes = (*notes_on(exporter, handed, told), *written.notes)
    budget = Budget(**(record.summary or {})["budget"])
    origin = f"Learnt by `{record.method}`, seed {record.seed}, within {budget}, in the run `{record.path}`."
    text = readme(exporter, handed, written, notes, origin, found.block)
    _write(out, {**written.files, "README.md": text}, rows)
    return Exported(out, found.shares, found.block, written.command, notes)


def _check_out(out: Path) -> None:
    """Refuse a folder that is taken, or that cannot be made, before data are loaded for it."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ApportionError(f"'{out}' is there already: give a new folder, or empty this one.")
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ApportionError(f"'{out}' cannot be a folder: '{there}' is a file. Give another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ApportionError(f"'{out}' cannot be written: no permission in '{there}'. Give another folder.")


def _write(out: Path, texts: Mapping[str, str], rows: Mapping[str, Rows]) -> None:
    """Write everything aside, rows one by one, and put it in place at once."""
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        for file in (*rows, *texts):
            (aside / file).parent.mkdir(parents=True, exist_ok=True)
        for file, lines in rows.items():
            with (aside / file).open("w", encoding="utf-8") as stream:
                for row in lines:
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        for file, text in texts.items():
            (aside / file).write_text(text, "utf-8")
        aside.replace(out)
    except OSError as error:
        raise write_error(out, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
