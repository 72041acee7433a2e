"""`apportion select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli._options import Assignments, Json, RecipeFile, print_json, quiet_libraries, recipe_values

if TYPE_CHECKING:
    from apportion.plans.select import Selected


def select(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file to write.")],
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Score examples toward the targets, and write which are kept.

    Columns: id, task, score, rank, kept, reason. Stopped, the same command goes on; nothing is scored twice. Train on it
    with --set selection.type=file --set selection.path=FILE.
    """
    from apportion.plans.recipe import parse_recipe

    parsed = parse_recipe(recipe_values(recipe, assignments))
    from apportion._ranks import rank
    from apportion.plans.select import select_recipe

    quiet_libraries()
    if rank() > 0:
        select_recipe(parsed, out)
        return
    if as_json:
        done = select_recipe(parsed, out)
        print_json({"path": str(done.path), "spent": done.spent, **done.summary})
        return
    from apportion.plans.progress import counted

    with counted(f"scoring by {parsed.selection['type']}", "chunks") as told:
        done = select_recipe(parsed, out, told)
    _print(done)


def _print(done: Selected) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from apportion.reports import words

    console = Console(highlight=False)
    summary: dict[str, Any] = done.summary
    table = Table("task", "examples", "kept", "share", title="Kept by task")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, task in summary["tasks"].items():
        share = f"{task['kept'] / task['pool']:.0%}" if task["pool"] else ""
        table.add_row(escape(name), f"{task['pool']:,}", f"{task['kept']:,}", share)
    console.print(table)
    kept, pool = summary["kept"], summary["pool"]
    console.print(
        f"Kept {kept['examples']:,} of {pool['examples']:,} examples, {kept['supervised']:,} of {pool['supervised']:,} "
        f"supervised tokens. By reason: {words.listing([f'{n:,} {why}' for why, n in summary['reasons'].items()], 5)}.",
        markup=False,
    )
    cost = [f"{words.flops(of['flops'])} FLOPs ({name})" for name, of in done.spent.items()]
    console.print(f"Cost: {words.listing(cost, 5) if cost else 'no pass of a model'}.", markup=False)
    console.print(f"File: {done.path}", markup=False, soft_wrap=True)
