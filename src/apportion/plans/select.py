"""A selection by itself, into a file of the user's."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from apportion._errors import ApportionError
from apportion._ranks import rank, wait
from apportion.budget import Budget, Ledger
from apportion.plans.build import make_model
from apportion.plans.progress import Told
from apportion.plans.recipe import Recipe
from apportion.plans.run import load, selection_stages
from apportion.plans.stages import expect
from apportion.runs import RunFolder


@dataclass(frozen=True)
class Selected:
    """A finished selection: its file, what was kept in numbers, and what it cost by account."""

    path: Path
    summary: dict[str, Any]
    spent: dict[str, dict[str, float]]


def select_recipe(recipe: Recipe, out: str | Path, told: Told | None = None) -> Selected:
    """Score a recipe's pool and write what is kept; goes on where it was stopped, by the folder beside the file.

    Args:
        recipe: Whose selection it is.
        out: The Parquet file.
        told: Called with how many chunks of how many are scored.

    Raises:
        ApportionError: Nothing to select, a file that is there already, or anything wrong with recipe, data or model.

    Cost: as the method says, by account in the result and in the file; no budget is asked.
    """
    file = Path(out)
    if recipe.chosen().keeps_all or recipe.chosen().given() is not None:
        raise ApportionError(
            "The recipe selects nothing: name a method, such as 'selection: bm25', or --set selection=bm25."
        )
    if file.exists():
        raise ApportionError(f"'{file}' is there already: give a new file, or delete this one to select again.")
    home = file.with_name(f"{file.name}.work")
    for block in (recipe.tasks, recipe.targets):
        if block is not None:
            block.keep_out(file)
    if rank() == 0:
        RunFolder.check(home, recipe.resolved())
    data = load(recipe, home)
    loaded: list[nn.Module] = []
    stages = selection_stages(recipe, data, file, home, lambda: loaded[0])
    # What it costs is said, not bounded: the recipe's budget is training's.
    ledger, expected = Ledger(Budget("flops", 1e40)), Ledger(Budget("flops", 1e40))
    for stage in stages:
        stage.check(expected)
        expect(expected, stage.price(expected))
    selecting = stages[-1]
    selecting.told = told or selecting.told
    loaded.append(make_model(recipe, data))
    folder = RunFolder.create(home, recipe.resolved()) if rank() == 0 else None
    with folder or nullcontext():
        for stage in stages:
            stage.run(ledger, folder, None)
        summary = selecting.summary()
    if rank() == 0:
        shutil.rmtree(home)
    wait()
    accounts = ledger.as_dict()["accounts"]
    return Selected(file, summary, {name: of for name, of in accounts.items() if of["processed"]})
