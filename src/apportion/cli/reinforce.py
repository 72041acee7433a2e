"""`apportion reinforce`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apportion.cli._options import Assignments, Json, RecipeFile, RunOut, print_json, quiet_libraries, recipe_values


def reinforce(
    recipe: RecipeFile,
    assignments: Assignments = None,
    out: RunOut = None,
    as_json: Json = False,
) -> None:
    """Train a finished run on, by rewards for answers within budgets of thinking.

    The recipe's 'rl' block names the run, the budgets and GRPO or BRPO. Where the folder holds an unfinished run of the same
    recipe, it goes on from its last checkpoint.
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
    from rich.table import Table

    from apportion.plans.progress import progress
    from apportion.reports import words

    with progress() as shown:
        run = reinforce_recipe(parsed, folder, shown.run(parsed.title))
    console = Console(highlight=False, markup=False)
    console.print(_table(Table, run.summary))
    total = sum(account["flops"] for account in run.summary["spent"].values())
    console.print(
        f"Spent: {run.summary['generated']:,} generated tokens in {run.summary['steps']:,} steps; {words.flops(total)} "
        "FLOPs in all."
    )
    console.print(f"Run:    {run.path}\nReport: {write_report(run.path)}", soft_wrap=True)


def _table(table: Any, summary: Mapping[str, Any]) -> Any:  # noqa: ANN401 - rich's, which is imported late
    """Return accuracy and thinking at each budget, before and after."""
    first, final = summary["first"], summary["final"]
    made = table("thinking at most", "right before", "after", "tokens used before", "after", title=summary["name"])
    for column in made.columns[1:]:
        column.justify = "right"
    for k, budget in enumerate(final["budgets"]):
        made.add_row(
            str(budget),
            *(_of(part, k) for part in (first, final)),
            *(f"{part['used'][k]:.1f}" for part in (first, final)),
        )
    made.add_section()
    made.add_row("area", f"{first['area']:.3f}", f"{final['area']:.3f}", "", "")
    return made


def _of(curve: dict[str, Any], place: int) -> str:
    error = curve["error"][place]
    return f"{curve['accuracy'][place]:.3f}" + (f" ± {error:.3f}" if error is not None else "")
