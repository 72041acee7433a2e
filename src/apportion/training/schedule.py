"""Learning-rate schedules that run on the share of the budget spent, not on a count of steps nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments, get_scheduler

from apportion._errors import ApportionError

# A schedule written for steps is read at progress * TICKS.
TICKS = 1_000_000


def budget_schedule(
    args: TrainingArguments, optimizer: torch.optim.Optimizer, progress: Callable[[], float]
) -> LambdaLR:
    """Build the schedule named in ``args`` (``lr_scheduler_type``, ``warmup_steps``) over the budget.

    Args:
        args: Hugging Face's arguments; ``warmup_steps`` must be a share of the budget below 1.
        optimizer: The optimizer it drives.
        progress: Returns the share of the budget spent, in [0, 1].

    Raises:
        ApportionError: Warm-up in whole steps, or a schedule that is no function of progress.
    """
    if args.warmup_steps >= 1:
        raise ApportionError(
            f"'training.warmup_steps' is {args.warmup_steps:g}, but a budget in tokens has no fixed number of steps: "
            "give a share of the budget below 1, such as 0.03."
        )
    specific: dict[str, Any] = dict(args.lr_scheduler_kwargs or {})
    template = get_scheduler(
        args.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=round(args.warmup_steps * TICKS),
        num_training_steps=TICKS,
        scheduler_specific_kwargs=specific,
    )
    if not isinstance(template, LambdaLR):
        raise ApportionError(
            f"'training.lr_scheduler_type' is '{args.lr_scheduler_type}', which does not follow progress alone; "
            "take linear, cosine, constant, constant_with_warmup, polynomial or inverse_sqrt."
        )
    return LambdaLR(optimizer, [_at_progress(shape, progress) for shape in template.lr_lambdas])


def _at_progress(shape: Callable[[int], float], progress: Callable[[], float]) -> Callable[[int], float]:
    return lambda _: shape(int(progress() * TICKS))
