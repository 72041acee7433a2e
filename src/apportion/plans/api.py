"""The library's front door: a dozen lines of Python do what a recipe does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion.mixtures._mixture import Mixture
from apportion.plans.compare import Comparison, compare_recipe
from apportion.plans.recipe import parse_recipe
from apportion.plans.run import Run, run_recipe
from apportion.tasks import TaskCollection
from apportion.weights._weighting import Weighting

Model = str | Mapping[str, Any]
Tasks = TaskCollection | str | Path | Mapping[str, Any]


def train(
    *,
    model: Model,
    tasks: Tasks,
    budget: str | int | Mapping[str, Any],
    out: str | Path,
    mixture: Mixture | str | Mapping[str, Any] = "uniform",
    weights: Weighting | str | Mapping[str, Any] = "uniform",
    seed: int = 0,
    **blocks: Any,  # noqa: ANN401
) -> Run:
    """Train one model within a budget.

    Args:
        model: A Hub name, a folder, or the recipe's ``model`` block.
        tasks: What `load_tasks` returned, a path, or the recipe's ``tasks`` block.
        budget: ``"5%"`` of the supervised tokens, ``"2M"``, ``"2M processed"`` or ``{"total": "1e17 FLOPs"}``.
        out: The run folder; an unfinished run of the same recipe in it is resumed.
        mixture: A method, its name, or the recipe's ``mixture`` block.
        weights: A method, its name, or the recipe's ``weights`` block.
        seed: Of everything random.
        **blocks: ``lora``, ``training`` (Hugging Face's argument names), ``validation`` and the rest, as in a recipe.

    Raises:
        ApportionError: Anything wrong with the arguments, data or model.
    """
    values = _values(model, tasks, budget, {"mixture": mixture, "weights": weights, "seed": seed, **blocks})
    return run_recipe(parse_recipe(values), out)


def compare(
    methods: Sequence[str | Mixture],
    *,
    model: Model,
    tasks: Tasks,
    budget: str | int | Mapping[str, Any],
    out: str | Path,
    seeds: Sequence[int] = (0,),
    **blocks: Any,  # noqa: ANN401
) -> Comparison:
    """Train several mixtures under one budget, with seeds, and summarise; arguments as for `train`.

    Raises:
        ApportionError: Anything wrong with the arguments, data or model.
    """
    blocks_of = {_block(m)["type"]: {"mixture": _block(m)} for m in methods}
    values = _values(model, tasks, budget, blocks)
    return compare_recipe({**values, "arms": blocks_of}, list(blocks_of), seeds, out)


def _values(model: Model, tasks: Tasks, budget: object, blocks: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(tasks, TaskCollection):
        if tasks.spec is None:
            raise ApportionError(
                "These tasks were not read by load_tasks: write them to a file, so a run can name them."
            )
        block = tasks.spec.model_dump(mode="json", exclude_none=True)
    else:
        block = dict(tasks) if isinstance(tasks, Mapping) else {"path": str(tasks)}
    values = {
        "model": {"name": model} if isinstance(model, str) else dict(model),
        "tasks": block,
        "budget": budget,
    }
    given = {key: value for key, value in blocks.items() if value is not None}
    for family in ("mixture", "weights"):
        if family in given:
            given[family] = _block(given[family])
    return values | given


def _block(method: Mixture | Weighting | str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(method, str):
        return {"type": method}
    if isinstance(method, Mixture | Weighting):
        # The file's name is the method's name in a recipe.
        name = type(method).__module__.rpartition(".")[2]
        return {"type": name, **method.model_dump(mode="json", exclude_none=True)}
    return dict(method)
