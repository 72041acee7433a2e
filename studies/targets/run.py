"""Which mixture makes a model good at a target; see README.md beside this file.

    python -m studies.targets.run [--minutes 9] [--workers 2] [--only PARTS] [--suites SUITES] [--arms ARMS]

PARTS are, commas between: oracle, cells, tuning; tuning only where it is named. Call it until it says that nothing is left,
then ``python -m studies.targets.summarise``. The suite ``hidden`` runs only where it is named.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

from studies import natural as bases
from studies.slices import parser, run_slice
from studies.targets import oracle
from studies.targets.arms import ARMS, WaitingError
from studies.targets.cells import EVERY, SUITES, Cell, cells
from studies.targets.places import NATURAL, data_of, prepare

Job = str | Cell
PARTS: dict[str, Callable[[list[str], list[str]], list[Cell]]] = {
    "oracle": lambda suites, arms: oracle.due(suites),
    "cells": cells,
    "tuning": lambda suites, arms: cells(suites, arms, tuning=True),
}


def work(job: Job) -> str:
    """Pre-train the base of an architecture, or run a cell and measure it; one that needs others waits."""
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import run_recipe
    from studies.targets.measure import unseen_losses

    if isinstance(job, str):
        bases.write_base(job)
        return f"base {job}"
    try:
        recipe = parse_recipe(job.recipe())
    except WaitingError:
        return ""
    if not (job.folder / "summary.json").exists():
        run_recipe(recipe, job.folder)
    found = unseen_losses(job.folder / "model", data_of(job.suite) / "unseen", recipe.tasks.max_length)
    job.unseen.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    # Thousands of runs: weights are not kept once they are measured.
    for part in ("model", "checkpoints"):
        shutil.rmtree(job.folder / part, ignore_errors=True)
    return f"{job.folder}: target {job.loss:.3f}"


def jobs(only: list[str], suites: list[str], arms: list[str]) -> list[Job]:
    """Return what is not finished, in the order in which later work needs it; a run that several cells share once."""
    wanted = [cell for part in only for cell in PARTS[part](suites, arms) if not cell.finished]
    distinct = list({cell.folder: cell for cell in wanted}.values())
    needed = sorted({cell.arch for cell in distinct if cell.family == NATURAL})
    return [base for base in needed if not bases.has_base(base)] + distinct


def waiting(job: Job) -> bool:
    """Whether a cell cannot run yet."""
    if isinstance(job, str):
        return False
    try:
        job.recipe()
    except WaitingError:
        return True
    return False


def main() -> None:
    """Run one slice."""
    options = parser(__doc__)
    options.add_argument("--only", default="oracle,cells", help="parts of the study, commas between")
    options.add_argument("--suites", default=",".join(SUITES), help="suites, commas between")
    options.add_argument("--arms", default=",".join(ARMS), help="arms, commas between")
    chosen = options.parse_args()
    only, suites = chosen.only.split(","), chosen.suites.split(",")
    arms = chosen.arms.split(",")
    for name, all_of_them in (("suite", EVERY), ("arm", ARMS), ("part", PARTS)):
        for given in {"suite": suites, "arm": arms, "part": only}[name]:
            if given not in all_of_them:
                options.error(f"there is no {name} '{given}': {', '.join(all_of_them)}")
    prepare(tuple(suites))
    if any(data_of(suite).name == NATURAL for suite in suites):
        bases.write_tasks()
    ready = [job for job in jobs(only, suites, arms) if not waiting(job)]
    run_slice(ready, work, chosen.minutes, chosen.workers)
    left = jobs(only, suites, arms)
    print(f"{len(left)} left: run again." if left else "Nothing left.")


if __name__ == "__main__":
    main()
