"""`apportion train`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from apportion.cli._options import Assignments, Json, RecipeFile, RunOut, print_json, quiet_libraries, recipe_values


def train(
    recipe: RecipeFile,
    assignments: Assignments = None,
    out: RunOut = None,
    as_json: Json = False,
) -> None:
    """Train one recipe within its budget.

    Where the folder holds an unfinished run of the same recipe, it goes on from its last checkpoint.
    """
    from apportion.plans.recipe import parse_recipe

    parsed = parse_recipe(recipe_values(recipe, assignments))
    from apportion._ranks import rank
    from apportion.plans.run import run_recipe

    quiet_libraries()
    folder = out or Path("runs") / recipe.stem
    if rank() > 0:  # of several processes the first one speaks
        run_recipe(parsed, folder)
        return
    from apportion.reports import write_report

    if as_json:
        run = run_recipe(parsed, folder)
        write_report(run.path)
        print_json(run.summary)
        return
    from rich.console import Console

    from apportion.plans.progress import progress
    from apportion.reports import words

    with progress() as shown:
        run = run_recipe(parsed, folder, shown.run(parsed.title))
    final, spent = run.summary["final"], run.summary["spent"]
    total = sum(account["flops"] for account in spent.values())
    console = Console(highlight=False, markup=False)
    console.print(
        f"{_validation(final)}\n"
        f"Spent: {spent['train']['supervised']:,} supervised tokens of training; {words.flops(total)} FLOPs in all, "
        f"{spent['train']['flops'] / total:.0%} of them training."
    )
    console.print(f"Run:    {run.path}\nReport: {write_report(run.path)}", soft_wrap=True)


def _validation(final: dict[str, Any]) -> str:
    """Return the last validation in a sentence: each loss, the standard error of the first, on how many examples."""
    from apportion.reports import words

    alone = [task for task, error in final["se"].items() if error is None]
    if "target" in final:
        said = _of_targets(final)
    else:
        error = f" ± {words.loss(final['macro_se'])}" if final["macro_se"] is not None else ""
        said = (
            f"Validation loss: macro {words.loss(final['macro'])}{error} ({_on(final, final['validation'])}), "
            f"worst task {words.loss(final['worst'])}, objective {words.loss(final['objective'])}."
        )
    if alone:
        said += f"\nIts standard error is not known: {words.listing(alone, 3)} has a single validation example."
    return said


def _of_targets(final: dict[str, Any]) -> str:
    """Return the target loss with each target's own, and apart from them the tasks that are no targets."""
    from apportion.reports import words
    from apportion.reports.goals import too_few

    targets, counts = final["targets"], final["examples"]
    error = f" ± {words.loss(final['target_se'])}" if final["target_se"] is not None else ""
    several = len(targets) > 1
    each = words.listing([f"{name} {words.loss(loss)}" if several else name for name, loss in targets.items()], 6)
    fewest, most = min(counts[name] for name in targets), max(counts[name] for name in targets)
    on = words.several(most, "example") if fewest == most else f"{fewest} to {most} examples"
    said = f"Target loss {words.loss(final['target'])}{error} ({each}; {on}{' each' if several else ''})"
    others = [task for task in final["validation"] if task not in targets]
    if others:
        said += f", other tasks {words.loss(final['others'])} ({_on(final, others)})"
    return " ".join(
        [f"{said}, worst task {words.loss(final['worst'])}.", *too_few({name: counts[name] for name in targets})]
    )


def _on(final: dict[str, Any], tasks: Collection[str]) -> str:
    from apportion.reports import words

    examples = sum(final["examples"][task] for task in tasks)
    return f"{words.several(len(tasks), 'task')}, {words.several(examples, 'example')}"
