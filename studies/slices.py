"""Long studies in short slices: what is finished is kept, and the same command goes on with the rest."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

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
