"""Adapters from instructions on tasks never seen; see README.md beside this file.

    python -m studies.tagi.run [--minutes 9] [--workers 2] [--only synthetic,natural] [--arms ...]

Call it until it says that nothing is left, then ``python -m studies.tagi.summarise``.
"""

from __future__ import annotations

import json

from studies.slices import parser, run_slice
from studies.tagi.cells import (
    DATA,
    LENGTHS,
    MAIN,
    PREPARED,
    ROOT,
    Cell,
    cells,
    instructions,
    prepared,
    tuning,
    write_data,
)
from studies.tagi.controls import evaluate, evaluate_plain


def work(job: str | Cell) -> str:
    """Prepare what the arms start from, or run a cell and score it; one whose needs are not done waits."""
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import run_recipe

    if isinstance(job, str):
        if job != PREPARED[0] and not has(PREPARED[0]):
            return ""
        final = run_recipe(parse_recipe(prepared(job)), ROOT / job).summary["final"]
        return f"{job}: macro {final['macro']:.3f}"
    tuned = job.part == "natural" or job.rate is not None or all(cell.finished for cell in tuning(job.kind))
    prepared_for = job.part == "synthetic" or all(map(has, PREPARED))
    if not (tuned and prepared_for and all(cell.finished for cell in job.needed)):
        return ""
    if not (job.folder / "summary.json").exists():
        run_recipe(parse_recipe(job.recipe()), job.folder)
    folder, lengths = DATA[job.part] / "held_out", LENGTHS[job.part]
    if job.plain:
        found = {job.arm: evaluate_plain(job.folder, folder, lengths, instructed=job.instructed)}
    else:
        found = evaluate(job.folder, folder, instructions(job.part), lengths)
    job.scores.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    first = next(iter(found.values()))
    return f"{job.folder}: exact match {first['exact_match']:.3f}, ROUGE-L {first['rouge_l']:.3f}"


def has(name: str) -> bool:
    """Whether something is prepared."""
    return (ROOT / name / "summary.json").exists()


def jobs(only: list[str], arms: list[str]) -> list[str | Cell]:
    """Return what is not finished, in the order in which later work needs it."""
    missing: list[str | Cell] = [name for name in PREPARED if not has(name)] if "natural" in only else []
    waiting = [cell for part in only for cell in cells(part) if not cell.finished and cell.arm in (arms or [cell.arm])]
    kinds = {cell.kind for cell in waiting if cell.part == "synthetic"}
    missing += [cell for kind in sorted(kinds) for cell in tuning(kind) if not cell.finished]
    # What the questions hang on first: the other heads on the programs come last.
    return [*missing, *sorted(waiting, key=lambda cell: cell.part == "synthetic" and cell.arm not in MAIN)]


def main() -> None:
    """Run one slice."""
    options = parser(__doc__)
    options.add_argument("--only", default="synthetic,natural", help="parts of the study, commas between")
    options.add_argument("--arms", default="", help="these arms alone, commas between (default all)")
    chosen = options.parse_args()
    only, arms = chosen.only.split(","), [arm for arm in chosen.arms.split(",") if arm]
    for part in only:
        write_data(part)
    run_slice(jobs(only, arms), work, chosen.minutes, chosen.workers)
    left = len(jobs(only, arms))
    print(f"{left} left: run again." if left else "Nothing left.")


if __name__ == "__main__":
    main()
