"""Long studies in short slices: what is finished is kept, and the same command goes on with the rest."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

# One thread a process and several processes: models this small gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Job = TypeVar("Job")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every study has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=9.0, help="start nothing new after this many (default 9)")
    options.add_argument("--workers", type=int, default=2, help="runs at a time (default 2)")
    return options


class _InTime:
    """Calls ``work`` on a job, or does nothing once the slice is over; an object, so that it reaches other processes."""

    def __init__(self, work: Callable[[Job], str], minutes: float) -> None:
        self.work, self.deadline = work, time.time() + 60 * minutes

    def __call__(self, job: Job) -> str:
        if time.time() > self.deadline:
            return ""
        started = time.time()
        said = self.work(job)
        return f"{said}, {time.time() - started:.0f} s" if said else ""


def run_slice(jobs: Sequence[Job], work: Callable[[Job], str], minutes: float, workers: int) -> None:
    """Do the jobs in order, several at a time, and print what each says when it is done."""
    print(f"{len(jobs)} to do.", flush=True)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for said in pool.imap(_InTime(work, minutes), jobs):
            if said:
                print(said, flush=True)


def recorded(file: Path, part: str, found: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a part of a result file says now: what was ``found``, and before it the entries found on another day.

    Args:
        file: The result file, which need not exist.
        part: Its list of entries.
        found: Entries of the runs that lie here; each takes the place of the file's with the same ``keys``.
        keys: What tells an entry from all others.
    """
    before = json.loads(file.read_text("utf-8")).get(part, []) if file.exists() else []
    now = {tuple(entry[key] for key in keys) for entry in found}
    return [entry for entry in before if tuple(entry[key] for key in keys) not in now] + list(found)
