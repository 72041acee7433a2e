"""Whether a run's parts go together, found out before it starts."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from apportion._errors import ApportionError
from apportion.budget.prices import Work
from apportion.plans.build import Data, Setup
from apportion.tasks import EncodedSplit
from apportion.tasks.batches import work_of

# OPT takes positions, but in transformers its attention does not go by them: packed examples would see each other.
_POSITIONS_ALONE = ("opt",)


def check_fit(model: nn.Module, data: Data, parts: Setup, ahead: float = 0.0) -> None:
    """Refuse what cannot be steered, examples longer than the model's positions, and a budget that may not reach for one.

    Args:
        model: The model, or its shapes on the meta device.
        data: The encoded tasks.
        parts: The budget and prices.
        ahead: FLOPs that are spent before anything else.

    Raises:
        ApportionError: The model, or the budget, is too small for the longest example, or the mixture's method cannot
            follow the model or the optimizer, or the model cannot tell packed examples apart.
    """
    for runner in parts.runners:
        runner.check(model, str(parts.args.optim.value), parts.stream.packs)
    if parts.stream.packs:
        _check_packing(model)
    trains = [task.train for task in data.tasks.tasks]
    splits = [split for task in data.tasks.tasks for split in (task.train, task.validation)]
    longest = max(int(split.processed.max()) for split in splits if len(split))
    longest = max([longest, *(int(split.processed[i]) for _, split, i in parts.bench.anchors.picked)])
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise ApportionError(
            f"The longest example has {longest:,} tokens but the model takes {positions:,}: set 'tasks.max_length' to that."
        )
    unit, left = parts.ledger.budget.unit, parts.allowance.left
    if unit == "flops":
        # The untrained model is validated as the trained one is, and the anchors are embedded before the first step.
        before = parts.allowance.reserve + sum(runner.opening() for runner in parts.runners)
        left -= before + ahead
        dearest = max(parts.train_flops(_longest(split, task)) for task, split in enumerate(trains))
        needed = f"{dearest + before + parts.allowance.reserve:.3g} FLOPs with the validation before and after it"
        spent = ahead + parts.ledger.total_flops
        needed += f", and {spent:.3g} FLOPs are spent before training" if spent else ""
    else:
        dearest = max(int(getattr(split, unit).max()) for split in trains)
        needed = f"{dearest:,} {unit} tokens"
    if left < dearest:
        raise ApportionError(
            f"The budget of {parts.ledger.budget} may not reach for one example, the longest of which takes {needed}: "
            "raise 'budget'."
        )


def _check_packing(model: nn.Module) -> None:
    """Refuse a model whose attention does not go by the positions that tell packed examples apart."""
    plain: Any = getattr(model, "get_base_model", lambda: model)()  # PEFT wraps it
    kind = plain.config.model_type
    if "position_ids" not in inspect.signature(plain.forward).parameters or kind in _POSITIONS_ALONE:
        raise ApportionError(
            f"A model of type '{kind}' does not keep packed examples apart: leave out 'packing', or take another 'model'."
        )


def _longest(split: EncodedSplit, task: int) -> Work:
    """Return what a pass over a split's longest example works on."""
    return work_of([split.example(int(split.processed.argmax()))], [task])
