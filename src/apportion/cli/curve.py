"""`apportion curve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion._errors import ApportionError
from apportion.cli._options import Json, listed, print_json, quiet_libraries
from apportion.cli.generate import BatchSize, Ignore, Least, ModelOrRun, Over, Prompts, Tags, tags_of, thinking_of

if TYPE_CHECKING:
    from apportion.caches import CacheMethod
    from apportion.runs.curve import CurveCell, CurveRecord


def curve(  # noqa: PLR0913, PLR0917 - a command's options
    model: ModelOrRun,
    prompts: Prompts,
    kv: Annotated[
        str | None, typer.Option(help="Budgets of the cache by comma: 16,32,64 or '1 pages,2 pages' or 10%,25%.")
    ] = None,
    thinking: Annotated[
        str | None, typer.Option(help="Budgets of thinking by comma: 0,64,128; 'all' is no limit.")
    ] = None,
    caches: Annotated[str, typer.Option(help="How the cache is read, by comma.")] = "streaming,quest,adamas,flexicache",
    answer: Annotated[str, typer.Option(help="Longest answer, in tokens.")] = "64",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The JSON file. [default: curve.json in the run, or here]")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="How many prompts, the first ones. [default: all]")
    ] = None,
    least: Least = 0,
    ignore: Ignore = 0,
    tags: Tags = None,
    over: Over = "refuse",
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of each method that has it, such as dense_layers=0; repeatable.",
        ),
    ] = None,
    batch_size: BatchSize = 1,
    as_json: Json = False,
) -> None:
    """Score answers against what is read of the cache, or thought.

    The dense line is beside. Rows with a 'reference' are judged by it; without, answers are compared with the dense ones,
    after thinking without a limit. Stopped, the same command goes on. Of a run the curve stands in its report.
    """
    from apportion.budget import InferenceBudget, KvLimit

    budget = InferenceBudget.parse({"answer": answer, "over": over})
    try:
        limits = [KvLimit.parse(part) for part in listed(kv or "")]
    except ValueError as error:
        raise ApportionError(f"'--kv {kv}': {error}.") from None
    thought = thinking_of(listed(thinking) if thinking is not None else [], least, ignore)
    names, given = listed(caches) if limits else [], tags_of(tags)
    if not (limits and names) and not thought:
        raise ApportionError(
            "A curve takes at least one budget with --kv and one method with --caches, or one budget with --thinking."
        )
    from apportion.plans.answering import load_answering
    from apportion.plans.curve import curve_file
    from apportion.plans.progress import counted
    from apportion.runs import is_run
    from apportion.runs.curve import FILE

    quiet_libraries()
    methods = _methods([name for name in names if name != "dense"], assignments or [])
    file = out or (Path(model) / FILE if Path(model).is_dir() and is_run(model) else Path(FILE))
    answering = load_answering(model)
    thinks = budget.model_copy(update={"thinking": thought[0] if thought else None})
    settings: dict[str, Any] = {
        "methods": methods,
        "limits": limits,
        "budget": budget,
        "thinking": thought,
        "tags": answering.tags(given, thinks),
        "examples": examples,
        "batch_size": batch_size,
    }
    if as_json:
        print_json(curve_file(answering, prompts, file, **settings).record)
        return
    with counted("answering", "cells") as told:
        done = curve_file(answering, prompts, file, told=told, **settings)
    _print(done.record, done.path)


def _methods(names: list[str], assignments: list[str]) -> dict[str, CacheMethod]:
    """Return the methods, each with those settings that it has; one that none of them has is refused by the first."""
    from apportion.plans.answering import cache_method
    from apportion.plans.recipe import overridden

    own = {name: type(cache_method(name)).model_fields for name in names}
    keys = [text.partition("=")[0].strip() for text in assignments]
    unknown = {key for key in keys if not any(key in fields for fields in own.values())}
    return {
        name: cache_method(
            overridden(
                {"type": name},
                [text for text, key in zip(assignments, keys, strict=True) if key in fields or key in unknown],
            )
        )
        for name, fields in own.items()
    }


def _columns(cells: Sequence[CurveCell], metric: str) -> dict[str, Callable[[CurveCell], str]]:
    """Return the table's columns: what is read of the cache where that differs, and thinking where there is some.

    Where both are, some stand in the file alone: a terminal is no wider.
    """
    from apportion.reports import words

    def score(cell: CurveCell) -> str:
        error = f" ± {cell['error']:.3f}" if cell["error"] is not None else ""
        return f"{cell['score']:.3f}{error}"

    found: dict[str, Callable[[CurveCell], str]] = {"cache": lambda cell: cell["name"]}
    cached = any(cell["kv"] for cell in cells)
    if cached:
        found["budget"] = lambda cell: cell["kv"] or "all"
    if thinks := any("thinking" in cell for cell in cells):
        found["thinking"] = lambda cell: "all" if cell["thinking"] is None else f"{cell['thinking']:,}"
        found["used"] = lambda cell: f"{cell['used']:,.1f}"
        if not cached:
            found["inserted"] = lambda cell: f"{cell['inserted']:,.1f}"
        found["forced"] = lambda cell: f"{cell['forced']:.0%}"
    found[metric] = score
    if cached:
        found["read a step"] = lambda cell: words.size(cell["read_a_step"])
    if cached and not thinks:
        found["cache at most"] = lambda cell: words.size(cell["resident_peak"])
    return found


def _print(record: CurveRecord, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console, metric = Console(highlight=False), record["settings"]["metric"]
    columns = _columns(record["cells"], metric)
    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for cell in record["cells"]:
        table.add_row(*(said(cell) for said in columns.values()))
    console.print(table)
    for name, under in record.get("area", {}).items():
        said = f"Area under {metric} against thinking tokens used, {name}: {under:.3f}."
        console.print(said, markup=False, soft_wrap=True)
    console.print(f"Curve: {path}", markup=False, soft_wrap=True)
