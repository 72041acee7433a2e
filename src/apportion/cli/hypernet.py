"""`apportion hypernet`: adapters from instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli._options import Json, print_json, quiet_libraries

hypernet = typer.Typer(
    help="Have LoRA adapters written from instructions.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@hypernet.callback()
def _bare(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@hypernet.command()
def adapter(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder of a recipe of 'kind: tagi'.")],
    instruction: Annotated[str, typer.Option(help="What the adapter's task asks for.")],
    out: Annotated[Path, typer.Option(help="A new folder for the adapter, as PEFT reads it.")],
    as_json: Json = False,
) -> None:
    """Write the LoRA adapter for one instruction."""
    import time

    from apportion.models.tagi import export
    from apportion.models.tagi.building import encode_instructions
    from apportion.plans.hypernet import load_hypernet

    quiet_libraries()
    model, tokenizer, base = load_hypernet(run)
    started = time.perf_counter()
    (ids,) = encode_instructions({"--instruction": instruction}, tokenizer, model.config)
    factors = export.adapter(model, ids)
    milliseconds = 1000 * (time.perf_counter() - started)
    export.write_adapter(model, factors, base, out)
    if as_json:
        print_json({"adapter": str(out), "base": base, "r": model.spec.r, "milliseconds": round(milliseconds, 2)})
        return
    typer.echo(f"Adapter: {out}  (rank {model.spec.r}, {len(factors)} layers, {milliseconds:.0f} ms)\nBase:    {base}")
