"""`apportion train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apportion.cli._options import Assignments, Json, RecipeFile, RunOut, print_json, quiet_libraries, recipe_values


def train(
    recipe: RecipeFile,
    assignments: Assignments = None,
    out: RunOut = None,
    as_json: Json = False,
) -> None:
    """Train one recipe within its budget.

    Where the folder holds an unfinished run of the same recipe, it goes on from its last checkpoint.
    """
    from apportion.plans.recipe import parse_recipe

    parsed = parse_recipe(recipe_values(recipe, assignments))
    from apportion._ranks import rank
    from apportion.plans.run import run_recipe

    quiet_libraries()
    folder = out or Path("runs") / recipe.stem
    if rank() > 0:  # of several processes the first one speaks
        run_recipe(parsed, folder)
        return
    from apportion.reports import write_report

    if as_json:
        run = run_recipe(parsed, folder)
        write_report(run.path)
        print_json(run.summary)
        return
    from rich.console import Console

    from apportion.plans.progress import progress
    from apportion.reports import words

    with progress() as shown:
        run = run_recipe(parsed, folder, shown.run(f"{parsed.mixture['type']}, seed {parsed.seed}"))
    final, spent = run.summary["final"], run.summary["spent"]
    total = sum(account["flops"] for account in spent.values())
    console = Console(highlight=False, markup=False)
    console.print(
        f"{_validation(final)}\n"
        f"Spent: {spent['train']['supervised']:,} supervised tokens of training; {words.flops(total)} FLOPs in all, "
        f"{spent['train']['flops'] / total:.0%} of them training."
    )
    console.print(f"Run:    {run.path}\nReport: {write_report(run.path)}", soft_wrap=True)


def _validation(final: dict[str, Any]) -> str:
    """Return the last validation in a sentence: each loss, the standard error of the macro loss, on how many examples."""
    from apportion.reports import words

    examples = final["examples"]
    alone = [task for task, error in final["se"].items() if error is None]
    error = f" ± {words.loss(final['macro_se'])}" if final["macro_se"] is not None else ""
    on = f"{words.several(len(examples), 'task')}, {words.several(sum(examples.values()), 'example')}"
    said = (
        f"Validation loss: macro {words.loss(final['macro'])}{error} ({on}), worst task {words.loss(final['worst'])}, "
        f"objective {words.loss(final['objective'])}."
    )
    if alone:
        said += f"\nIts standard error is not known: {words.listing(alone, 3)} has a single validation example."
    return said
