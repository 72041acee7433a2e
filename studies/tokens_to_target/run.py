"""Which mixture gets where with how many tokens; see README.md beside this file.

    python studies/tokens_to_target/run.py [--minutes 9] [--workers 2] [--only tuning,generated,natural,ablation]

Call it until it says that nothing is left: what is finished is kept, what was stopped goes on. Then ``summarise.py``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from cells import BASES, Cell, NotReady, ablation, generated, natural, tuning  # noqa: E402
from natural import write_base, write_tasks  # noqa: E402
from suites import SUITES, write  # noqa: E402

from apportion.plans.recipe import parse_recipe  # noqa: E402
from apportion.plans.run import run_recipe  # noqa: E402

ROOT = Path("runs/tokens_to_target")


def prepare() -> None:
    """Write the suites and the shortened tasks, unless they are there."""
    for name, make in SUITES.items():
        if not (ROOT / "data" / name).exists():
            write(make(), ROOT / "data" / name)
    if not (ROOT / "data" / "natural").exists():
        write_tasks(ROOT / "data" / "natural")


def work(job: tuple[str, Any, float]) -> str:
    """Do one job unless the slice is over."""
    kind, what, deadline = job
    if time.time() > deadline:
        return ""
    started = time.time()
    if kind == "base":
        write_base(what, ROOT / "data" / "natural", ROOT / "data" / "inputs.jsonl", BASES / what)
        return f"base {what}: {time.time() - started:.0f} s"
    cell: Cell = what
    try:
        recipe = parse_recipe(cell.recipe())
    except NotReady:
        return ""
    run = run_recipe(recipe, cell.folder)
    final = run.summary["final"]
    return f"{cell.folder}: macro {final['macro']:.3f}, J {final['objective']:.3f}, {time.time() - started:.0f} s"


def jobs(only: set[str], arms: set[str], deadline: float) -> list[tuple[str, Any, float]]:
    """Return what is not finished, in the order in which later work needs it."""
    cells: list[Cell] = []
    if "tuning" in only:
        cells += tuning()
    if "generated" in only:
        cells += generated()
    if "natural" in only:
        cells += natural()
    if "ablation" in only:
        cells += ablation()
    bases = sorted({cell.arch for cell in cells if cell.suite == "natural"})
    waiting: list[tuple[str, Any, float]] = [
        ("base", arch, deadline) for arch in bases if not (BASES / arch / "summary.json").exists()
    ]
    return waiting + [
        ("cell", cell, deadline) for cell in cells if not cell.finished and (not arms or cell.arm in arms)
    ]


def main() -> None:
    """Run one slice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="start nothing new after this many (default 9)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="tuning,generated,natural,ablation")
    parser.add_argument("--arms", default="", help="these arms only, by name, commas between")
    options = parser.parse_args()
    prepare()
    only = set(options.only.split(","))
    arms = set(filter(None, options.arms.split(",")))
    waiting = jobs(only, arms, time.time() + 60 * options.minutes)
    print(f"{len(waiting)} to do.", flush=True)
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for said in pool.imap(work, waiting):
            if said:
                print(said, flush=True)
    left = len(jobs(only, arms, 0.0))
    print(f"{left} left: run again." if left else "Nothing left: run summarise.py.")


if __name__ == "__main__":
    main()
