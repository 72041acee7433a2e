"""`apportion init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli._options import Json, print_json, quiet_libraries

if TYPE_CHECKING:
    from apportion.plans.looking import Found


def init(
    data: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Your data: a folder with one file a task, or these files.")
    ],
    out: Annotated[Path, typer.Option(help="The recipe to write; a file that is there is never written over.")] = Path(
        "recipe.yaml"
    ),
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A Hub name or a folder to train. [default: a small model from scratch]"),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE_OR_TASK", help="What the model should be good at; repeatable."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A key of the recipe's tasks, such as columns.prompt=question."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at your data and write a commented recipe for it.

    What it writes is ready for plan and compare as it is.
    """
    from apportion.plans.init import check_place, write_recipe
    from apportion.plans.looking import look
    from apportion.plans.recipe import overridden

    check_place(data, out)
    settings: dict[str, Any] = overridden({}, assignments or [])
    quiet_libraries()
    found = look(data, model=model, targets=target or (), settings=settings)
    write_recipe(found, out)
    if as_json:
        print_json({"recipe": str(out), **found.as_dict()})
    else:
        _print(found, out)


def _print(found: Found, out: Path) -> None:
    from rich.console import Console

    from apportion.plans.init import overview

    console = Console(highlight=False, markup=False)
    console.print("\n".join(overview(found)), soft_wrap=True)
    console.print(f"Recipe: {out}\nNext:   apportion plan {out}", soft_wrap=True)
