"""`apportion profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli._options import Json, print_json, quiet_libraries
from apportion.cli.generate import ModelOrRun, Prompts

_SHOWN = 8


def profile(
    model: ModelOrRun,
    prompts: Prompts,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The JSON file, for flexicache's 'profile'.")],
    pages: Annotated[int, typer.Option(min=1, help="Pages that a stable head is to keep.")] = 16,
    page: Annotated[int, typer.Option(min=1, help="Tokens of a page.")] = 16,
    interval: Annotated[int, typer.Option(min=1, help="Steps between rankings.")] = 16,
    answer: Annotated[str, typer.Option(help="Tokens written to each prompt.")] = "64",
    as_json: Json = False,
) -> None:
    """Measure how long heads keep their best pages of the cache.

    The least stable heads are those that flexicache keeps whole: --set profile=FILE.
    """
    from apportion.budget import InferenceBudget

    budget = InferenceBudget.parse({"answer": answer})
    from apportion.caches.stability import Stability
    from apportion.plans.answering import load_answering
    from apportion.plans.profile import profile_file
    from apportion.plans.progress import counted

    quiet_libraries()
    method = Stability(page=page, pages=pages, interval=interval, dense_layers=0)
    answering = load_answering(model)
    if as_json:
        print_json(profile_file(answering, prompts, out, method=method, budget=budget).record)
        return
    with counted("answering", "prompts") as told:
        done = profile_file(answering, prompts, out, method=method, budget=budget, told=told)
    from rich.console import Console
    from rich.table import Table

    heads = sorted(done.record["heads"], key=lambda head: head["stability"])
    console = Console(highlight=False)
    table = Table("layer", "head", "stability", "of what it can be", title="The least stable heads")
    for head in heads[:_SHOWN]:
        table.add_row(str(head["layer"]), str(head["head"]), f"{head['stability']:.3f}", f"{head['share']:.0%}")
    console.print(table)
    console.print(f"{len(heads)} heads. Profile: {done.path}", markup=False, soft_wrap=True)
