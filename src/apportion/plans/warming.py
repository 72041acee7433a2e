"""The models that a pool is looked at with: the checkpoints of a warm-up, each with its optimizer's state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from apportion._errors import ApportionError
from apportion.models.loading import quietly
from apportion.plans.build import Data, make_model
from apportion.plans.recipe import Recipe
from apportion.runs import read_run
from apportion.signals._pool import Look
from apportion.signals.inner_step import inner_step
from apportion.training.checkpoint import checkpoints_of


def looks_of(recipe: Recipe, data: Data, run: Path, count: int) -> Iterator[Look]:
    """Yield a look for each checkpoint of a finished run, the earliest first; its weight is its share of the learning rates.

    Args:
        recipe: The run's.
        data: Its tasks.
        run: Its folder.
        count: How many checkpoints there have to be.

    Raises:
        ApportionError: There are fewer: the run had fewer steps.
    """
    places = checkpoints_of(run / "checkpoints")[-count:]
    if len(places) < count:
        raise ApportionError(
            f"The warm-up in '{run}' left {len(places)} checkpoints of {count}: raise 'selection.warmup', so that it has "
            "more steps, or lower 'selection.epochs'."
        )
    rates = _rates(run, [int(place.name.partition("-")[2]) for place in places])
    args = recipe.arguments(run)
    model = make_model(recipe, data)
    for place, rate in zip(places, rates, strict=True):
        trainer = _Restored(model=model, args=args)
        with quietly():
            trainer.restore(place)
        yield Look(trainer.model, inner_step(trainer.model, trainer.optimizer, rate), rate / sum(rates))


class _Restored(Trainer):
    """A trainer that only takes a checkpoint up: it lays its optimizer's parameters out as the one that wrote it did."""

    def __init__(self, *, model: torch.nn.Module, args: TrainingArguments) -> None:
        super().__init__(model=model, args=args)

    def restore(self, checkpoint: Path) -> None:
        """Load the model's weights, and the optimizer's state."""
        self._load_from_checkpoint(str(checkpoint))
        optimizer = self.create_optimizer()
        # The optimizer takes its state to its parameters itself, and torch cannot load onto one CPU of several ranks.
        state = torch.load(checkpoint / "optimizer.pt", weights_only=True, map_location="cpu")
        optimizer.load_state_dict(state)


def _rates(run: Path, steps: list[int]) -> list[float]:
    """Return the mean learning rate of the stretch before each checkpoint, from the run's history."""
    history = [record for record in read_run(run).history if record["step"] > 0]
    rates, before = [], 0
    for step in steps:
        part = [float(record["lr"] or 0.0) for record in history if before < record["step"] <= step]
        rates.append(sum(part) / len(part) if part else 0.0)
        before = step
    # A schedule may end at zero, and one stretch may hold no record: none counts less than the smallest.
    least = min((rate for rate in rates if rate > 0), default=1.0)
    return [max(rate, least) for rate in rates]
