"""`apportion export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion._errors import ApportionError
from apportion.cli._options import Json, print_json, quiet_libraries

if TYPE_CHECKING:
    from apportion.plans.export import Exported


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="TRAINER", help="One of trl, axolotl, llama-factory, open-instruct, datasets."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="A new folder, for --to.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a run drew, or write it for another trainer.

    With --to the folder holds that trainer's own config, each task's train split, and a README that says what to run and
    what the trainer cannot express.
    """
    from apportion.exports import EXPORTERS

    if to is not None:
        EXPORTERS.check({"type": to})
    if to is not None and out is None:
        raise ApportionError(f"'--to {to}' needs '--out PATH', a new folder.")
    if to is None and out is not None:
        raise ApportionError(f"'--out' needs '--to TRAINER', one of {', '.join(EXPORTERS)}.")
    from apportion.plans.export import export_run, shares_in

    if to is None or out is None:
        done = shares_in(run)
    else:
        quiet_libraries()
        done = export_run(run, to, out)
    if as_json:
        path = None if done.path is None else str(done.path)
        print_json({**asdict(done), "path": path})
    else:
        _print(done)


def _print(done: Exported) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from apportion.reports import words

    console = Console(highlight=False)
    weighed = any(share.weight is not None for share in done.shares)
    table = Table("task", "size", "share of\ntokens", "share of\nrows", "epochs", *(["weight"] if weighed else []))
    for column in table.columns[1:]:
        column.justify = "right"
    for share in done.shares:
        cells = [escape(share.name), words.count(share.size), words.percent(share.tokens), words.percent(share.rows)]
        cells.append(words.epochs(share.epochs))
        if weighed:
            cells.append(words.NONE if share.weight is None else f"{share.weight:.2f}")
        table.add_row(*cells)
    console.print(table)
    console.print(f"\nTo draw so from the start, in a recipe:\n\n{done.block}", markup=False, soft_wrap=True)
    if done.path is not None:
        for note in done.notes:
            console.print(f"- {note}", markup=False)
        console.print(f"\nFolder: {done.path}\nThere:  {done.command}", markup=False, soft_wrap=True)
