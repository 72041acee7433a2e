"""`apportion evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.cli._options import Json, listed, print_json, quiet_libraries

if TYPE_CHECKING:
    from apportion.plans.evaluate import Evaluated


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs, or comparisons.")],
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks, by comma: bbh, gsm8k, the suite adapt11, any name of lm-evaluation-harness, or YAML files of "
            "its format. [default: the recipe's]"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples of each task. [default: all]")] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples shown before each question. [default: the task's own]")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the tokenizer's chat template.")] = False,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code",
            help="Run the code that the model writes for humaneval and mbpp: in a process of its own, without a network, "
            "with nothing to write to, and little time.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask finished models benchmarks, through lm-evaluation-harness.

    What a run has of the same benchmarks is not asked again: stopped, the same command goes on. Scores go to
    evaluation.json in the run folder, answers to evaluation/, the cost to the ledger.
    """
    from apportion._config import validate
    from apportion.evaluation.spec import EvaluateSpec

    values = {"tasks": listed(tasks or ""), "limit": limit, "shots": shots, "chat": chat, "run_code": run_code}
    spec = None if tasks is None else validate(EvaluateSpec, values, "evaluate")
    from apportion.plans.evaluate import evaluate_run, runs_in
    from apportion.plans.progress import counted

    quiet_libraries()
    found = []
    for path in runs_in(runs):
        if as_json:
            found.append(evaluate_run(path, spec))
            continue
        with counted(str(path), "tasks") as told:
            found.append(evaluate_run(path, spec, told))
        _print(found[-1])
    if as_json:
        print_json([{"path": str(done.path), "asked": done.asked, **done.record} for done in found])


def _print(done: Evaluated) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from apportion.reports import words
    from apportion.runs.evaluation import Mean, group_scores, macro, set_scores

    console, record = Console(highlight=False), done.record
    table = Table("benchmark", "metric", "score", "examples", title=escape(str(done.path)))
    for column in table.columns[2:]:
        column.justify = "right"

    def row(name: str, metric: str, score: Mean | None) -> None:
        if score is not None:
            error = f" ± {score.error:.3f}" if score.error is not None else ""
            table.add_row(escape(name), escape(metric), f"{score.value:.3f}{error}", f"{score.examples:,}")

    sets, groups = set_scores(record), group_scores(record)
    metrics = {task["set"]: task["metric"] for task in record["tasks"].values()}
    grouped = {name for names in record["groups"].values() for name in names}
    for group, names in record["groups"].items():
        row(group, "", groups.get(group))
        for name in names:
            row(f"  {name}", metrics.get(name, ""), sets.get(name))
    for name, score in sets.items():
        if name not in grouped:
            row(name, metrics[name], score)
    if len(sets) > 1 and (average := macro(record)) is not None:
        table.add_section()
        row("mean of the sets", "", average)
    console.print(table)
    flops = sum(task["spent"]["flops"] for task in record["tasks"].values())
    again = "" if done.asked else " Nothing was left to ask."
    console.print(f"Cost: {words.flops(flops)} FLOPs, charged to 'evaluate'.{again}", markup=False)
