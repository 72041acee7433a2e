"""`apportion reinforce`."""

from __future__ import annotations

from pathlib import Path

from apportion.cli._options import Assignments, Json, RecipeFile, RunOut, print_json, quiet_libraries, recipe_values


def reinforce(
    recipe: RecipeFile,
    assignments: Assignments = None,
    out: RunOut = None,
    as_json: Json = False,
) -> None:
    """Train a run on, by rewards within budgets of thinking.

    The recipe's 'rl' block names a finished run, the budgets, and GRPO or BRPO. Where the folder holds an unfinished run of
    the same recipe, it goes on from its last checkpoint.
    """
    from apportion.plans.reinforcing import parse_reinforcing

    parsed = parse_reinforcing(recipe_values(recipe, assignments))
    from apportion.plans.reinforce import reinforce_recipe
    from apportion.reports import write_report

    quiet_libraries()
    folder = out or Path("runs") / recipe.stem
    if as_json:
        run = reinforce_recipe(parsed, folder)
        write_report(run.path)
        print_json(run.summary)
        return
    from rich.console import Console

    from apportion.plans.progress import progress
    from apportion.reports import words
    from apportion.reports.rl.terminal import reinforce_table
    from apportion.runs import read_run

    with progress() as shown:
        run = reinforce_recipe(parsed, folder, shown.run(parsed.title))
    console = Console(highlight=False, markup=False)
    console.print(reinforce_table(read_run(run.path)))
    total = sum(account["flops"] for account in run.summary["spent"].values())
    console.print(f"Spent: {words.flops(total)} FLOPs in all.")
    console.print(f"Run:    {run.path}\nReport: {write_report(run.path)}", soft_wrap=True)
