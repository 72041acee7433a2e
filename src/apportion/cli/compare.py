"""`apportion compare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from apportion._errors import ApportionError
from apportion.cli._options import (
    Assignments,
    Json,
    RecipeFile,
    listed,
    print_json,
    quiet_libraries,
    recipe_values,
    seed_numbers,
)


def compare(
    recipe: RecipeFile,
    methods: Annotated[
        str | None, typer.Option(help="Arms of the recipe or mixtures, by comma. [default: all arms of the recipe]")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, by comma.")] = "0",
    assignments: Assignments = None,
    out: Annotated[Path | None, typer.Option(help="The folder. [default: runs/compare-<recipe's name>]")] = None,
    as_json: Json = False,
) -> None:
    """Run several methods under one budget and compare them.

    Runs that the folder holds are kept where they are finished, and go on where they are not.
    """
    values = recipe_values(recipe, assignments)
    arms = listed(methods) if methods is not None else list(values.get("arms") or {})
    if not arms:
        raise ApportionError("Nothing to compare: name methods with --methods, such as uniform,proportional,adapt.")
    numbers = seed_numbers(seeds)
    from apportion.plans.arms import sketch_arms

    sketch_arms(values, arms)
    from apportion._ranks import rank
    from apportion.plans.compare import compare_recipe
    from apportion.reports import write_report

    quiet_libraries()
    folder = out or Path("runs") / f"compare-{recipe.stem}"
    if rank() > 0:  # of several processes the first one speaks
        compare_recipe(values, arms, numbers, folder)
        return
    if as_json:
        comparison = compare_recipe(values, arms, numbers, folder)
        write_report(comparison.path)
        print_json(comparison.summary)
        return
    from apportion.plans.progress import progress

    with progress() as shown:
        comparison = compare_recipe(values, arms, numbers, folder, lambda arm, seed: shown.run(f"{arm}, seed {seed}"))
    _print(comparison.path, comparison.summary, write_report(comparison.path))


def _print(folder: Path, summary: Mapping[str, Any], report: Path) -> None:
    from rich.console import Console

    from apportion.reports import terminal_table, verdict_on

    console = Console(highlight=False)
    console.print(terminal_table(summary))
    said = verdict_on(folder)
    console.print("\n".join([said.headline, *said.details]), markup=False)
    console.print(f"Runs:   {folder}\nReport: {report}", soft_wrap=True, markup=False)
