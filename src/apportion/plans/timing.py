"""How long a run takes on this machine, judged from a few of its own steps, which are thrown away."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from apportion.budget import ACCOUNTS, Ledger
from apportion.plans.build import Data, Setup, assemble, load_data, make_model, make_trainer
from apportion.plans.recipe import Recipe, parse_recipe
from apportion.signals.losses import task_losses
from apportion.training.recorder import Recorder
from apportion.training.trainer import BudgetTrainer

LARGEST_TIMED = 300_000_000  # parameters: a larger model takes too long to try for an estimate
FEWEST_STEPS, MOST_STEPS = 3, 12
STEP_SECONDS, VALIDATION_SECONDS = 3.0, 1.5
MOST_SECONDS = 15.0  # that the fewest steps may be expected to take
# Around what was timed: other work on the machine, longer and shorter batches, a slower disk.
SPREAD = 2.0
# Of the rate in large matmuls, where nothing was timed: the least, the usual and the most that training reaches.
UTILISATION = (0.1, 0.4, 0.9)


@dataclass(frozen=True)
class Pace:
    """What a few steps took.

    ``steps``: how many were timed. ``start``: seconds once, for the trainer and what the first step takes longer.
    ``train`` and ``measure``: seconds a FLOP, of steps and of validation. ``checkpoint``: seconds each.
    """

    steps: int
    start: float
    train: float
    measure: float
    checkpoint: float


@dataclass(frozen=True)
class Seconds:
    """A run's wall-clock time: the estimate, and the range it likely lies in."""

    low: float
    middle: float
    high: float


def seconds_of(
    accounts: Mapping[str, Mapping[str, float]], validations: int, pace: Pace | None, rate: float
) -> Seconds:
    """Return how long a run takes that spends this.

    Args:
        accounts: Expected FLOPs by account.
        validations: How many there are; a checkpoint follows each but the first and the last.
        pace: What was timed, or None for an estimate by ``rate`` alone.
        rate: FLOPs a second in large matmuls.
    """
    flops = {name: account["flops"] for name, account in accounts.items()}
    if pace is None:
        least, usual, most = (sum(flops.values()) / (part * rate) for part in reversed(UTILISATION))
        return Seconds(least, usual, most)
    validation = flops.pop("validation")
    middle = pace.start + pace.train * sum(flops.values()) + pace.measure * validation
    middle += pace.checkpoint * max(validations - 2, 0)
    return Seconds(middle / SPREAD, middle, middle * SPREAD)


def worth_timing(parameters: int, step: float, rate: float) -> bool:
    """Return whether a few steps of a model of so many parameters, of ``step`` FLOPs each, take seconds and not minutes."""
    return parameters <= LARGEST_TIMED and (FEWEST_STEPS + 1) * step <= MOST_SECONDS * UTILISATION[1] * rate


def measured_pace(recipe: Recipe) -> Pace:
    """Make a few optimizer steps, a validation and a checkpoint of a recipe, on weights made up here; keep nothing.

    Arms and seeds of a comparison differ in what is drawn and measured, not in what a FLOP takes: they share the result.
    """
    plain = recipe.resolved()
    # Uniform draws, so that what steering costs is not taken for training, and a budget that does not end before.
    plain |= {"mixture": {"type": "uniform"}, "budget": {"processed": 10**12}, "seed": 0}
    plain |= {"validation": {"every": 1.0}, "training": {**plain["training"], "report_to": "none"}}
    return _timed(json.dumps(plain, sort_keys=True))


@lru_cache(maxsize=4)
def _timed(plain: str) -> Pace:
    recipe = parse_recipe(json.loads(plain))
    data = load_data(recipe)
    model = _made_up(recipe, make_model(recipe, data, meta=True))
    with TemporaryDirectory() as folder:
        parts = assemble(recipe, data, recipe.model_kind().prices(model), Path(folder))
        parts.args.max_steps = MOST_STEPS
        started = time.perf_counter()
        trainer = _trainer(model, data, parts, Path(folder))
        clock = _Clock(parts.ledger)
        trainer.add_callback(clock)
        trainer.train()
        step = (clock.at[-1] - clock.at[0]) / (len(clock.at) - 1)
        measure = _measured(trainer.model, data, parts)
        return Pace(
            steps=len(clock.at) - 1,
            start=max(clock.at[0] - started - step, 0.0),
            train=(clock.at[-1] - clock.at[0]) / (clock.flops[-1] - clock.flops[0]),
            measure=measure,
            checkpoint=_saved(trainer),
        )


def _made_up(recipe: Recipe, shapes: nn.Module) -> nn.Module:
    """Return the model with small random weights: nothing is loaded, and a FLOP takes as long."""
    model: Any = shapes.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
            else:
                tensor.zero_()
    model.tie_weights()
    return model.to(getattr(torch, recipe.model.dtype)) if recipe.model.name else model


def _trainer(model: nn.Module, data: Data, parts: Setup, folder: Path) -> BudgetTrainer:
    recorder = Recorder(
        data.tasks.names,
        [],  # validation is timed apart
        every=1.0,
        ledger=parts.ledger,
        prices=parts.prices,
        affords=lambda flops: False,
        proportions=lambda: parts.mixture.p,
        append=lambda record: None,
        weights=parts.weights.summary,
    )
    return make_trainer(model, data, parts, recorder, folder)


class _Clock(TrainerCallback):
    """Notes when each optimizer step ended and the FLOPs spent by then; stops once that is enough."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.at: list[float] = []
        self.flops: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401
        _synchronise(args.device)
        self.at.append(time.perf_counter())
        self.flops.append(sum(self._ledger.spent(account).flops for account in ACCOUNTS))
        enough = len(self.at) >= FEWEST_STEPS and self.at[-1] - self.at[0] > STEP_SECONDS
        control.should_training_stop = control.should_training_stop or enough


def _measured(model: nn.Module, data: Data, parts: Setup) -> float:
    """Return the seconds a FLOP of validation takes, on batches from all lengths."""
    device, flops, started = next(model.parameters()).device, 0.0, time.perf_counter()
    for batch in parts.report[:: max(len(parts.report) // 8, 1)]:
        task_losses(model, [batch], len(data.held_out.names), device)
        flops += parts.prices.forward(batch.work)
        if time.perf_counter() - started > VALIDATION_SECONDS:
            break
    return (time.perf_counter() - started) / flops


def _saved(trainer: BudgetTrainer) -> float:
    started = time.perf_counter()
    trainer._save_checkpoint(trainer.model, None)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
