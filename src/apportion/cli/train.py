"""`apportion train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli._options import Assignments, Json, RecipeFile, print_json, quiet_libraries, recipe_values


def train(
    recipe: RecipeFile,
    assignments: Assignments = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<recipe's name>]")] = None,
    as_json: Json = False,
) -> None:
    """Train one recipe within its budget; goes on by itself where an unfinished run of it was left."""
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import run_recipe

    parsed = parse_recipe(recipe_values(recipe, assignments))
    quiet_libraries()
    folder = out or Path("runs") / recipe.stem
    if as_json:
        print_json(run_recipe(parsed, folder).summary)
        return
    from rich.console import Console

    from apportion.cli._progress import bars
    from apportion.reports import write_report

    with bars() as shown:
        run = run_recipe(parsed, folder, shown.run(f"{parsed.mixture['type']}, seed {parsed.seed}"))
    final, spent = run.summary["final"], run.summary["spent"]
    total = sum(account["flops"] for account in spent.values())
    console = Console()
    console.print(
        f"Validation loss: macro {final['macro']:.3f}, worst task {final['worst']:.3f}, "
        f"objective {final['objective']:.3f}. Trained on {spent['train']['supervised']:,} supervised tokens; "
        f"{total:.3g} FLOPs in all, {spent['train']['flops'] / total:.0%} of them training."
    )
    console.print(f"Run:    {run.path}\nReport: {write_report(run.path)}", soft_wrap=True)
