"""Which mixture gets where with how many tokens; see README.md beside this file.

    python -m studies.tokens_to_target.run [--minutes 9] [--workers 2] [--only PARTS] [--arms ARMS]

PARTS are, commas between: tuning, generated, natural, ablation, sweep, groups, paper-tuning, paper-generated,
paper-sweep, paper-natural. Call it until it says that nothing is left,
then ``python -m studies.tokens_to_target.summarise``.
"""

from __future__ import annotations

from studies import natural as tasks
from studies.slices import parser, run_slice
from studies.tokens_to_target.cells import (
    DATA,
    Cell,
    NotTunedError,
    ablation,
    generated,
    groups,
    natural,
    sweep,
    tuning,
)
from studies.tokens_to_target.paper import paper_generated, paper_natural, paper_sweep, paper_tuning
from studies.tokens_to_target.suites import SUITES, write

PARTS = {
    "tuning": tuning,
    "generated": generated,
    "natural": natural,
    "ablation": ablation,
    "sweep": sweep,
    "groups": groups,
    "paper-tuning": paper_tuning,
    "paper-generated": paper_generated,
    "paper-sweep": paper_sweep,
    "paper-natural": paper_natural,
}


def work(job: str | Cell) -> str:
    """Pre-train the base of an architecture, or run a cell; a cell whose learning rate is not chosen yet waits."""
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import run_recipe

    if isinstance(job, str):
        tasks.write_base(job)
        return f"base {job}"
    try:
        recipe = parse_recipe(job.recipe())
    except NotTunedError:
        return ""
    final = run_recipe(recipe, job.folder).summary["final"]
    return f"{job.folder}: macro {final['macro']:.3f}, J {final['objective']:.3f}"


def jobs(only: list[str], arms: list[str]) -> list[str | Cell]:
    """Return what is not finished, in the order in which later work needs it; of some arms, or of all if none is named."""
    cells = [cell for part in only for cell in PARTS[part]() if not cell.finished]
    cells = [cell for cell in cells if not arms or cell.arm in arms]
    bases = sorted({cell.arch for cell in cells if cell.suite == "natural"})
    return [base for base in bases if not tasks.has_base(base)] + cells


def main() -> None:
    """Run one slice."""
    options = parser(__doc__)
    options.add_argument("--only", default=",".join(PARTS), help="parts of the study, commas between")
    options.add_argument("--arms", default="", help="run these arms alone, commas between")
    chosen = options.parse_args()
    only, arms = chosen.only.split(","), [arm for arm in chosen.arms.split(",") if arm]
    for name, make in SUITES.items():
        if not (DATA / name).exists():
            write(make(), DATA / name)
    tasks.write_tasks()
    run_slice(jobs(only, arms), work, chosen.minutes, chosen.workers)
    left = len(jobs(only, arms))
    print(f"{left} left: run again." if left else "Nothing left.")


if __name__ == "__main__":
    main()
