"""What a plan shows that is better changed before it is paid for: what was seen, and which key to set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel

from apportion.models.sizes import machine_memory

MOST_SHARE = 0.1
"""Of a run's FLOPs, for the report's validations or for what a method measures."""
MOST_EPOCHS = 10
# The keys by which methods say how often, and on how much, they measure.
_MEASURING = ("refresh", "max_cost", "reads", "examples_per_task", "anchors", "rounds", "steps", "pool", "keep")


@dataclass(frozen=True)
class Advice:
    """What was ``seen``, and what to ``set`` instead."""

    seen: str
    set: str


@dataclass(frozen=True)
class Validations:
    """The report's validations: how often they are due, on how many examples a task, and the FLOPs of one on so many."""

    every: float
    examples_per_task: int
    flops: Callable[[int], float]


def advise_validation(
    validations: Validations, steps: int, total: float, cadences: Sequence[float]
) -> Iterator[Advice]:
    """Advise where validations take more than a tenth of a run's FLOPs, ``total``.

    Args:
        validations: What is planned.
        steps: Of the run; no step is followed by more than one validation.
        total: FLOPs of all accounts.
        cadences: Shares of the budget to choose from, the rarest last; one validation in the middle is kept.
    """
    now, count = validations.examples_per_task, count_of(validations.every, steps)
    once = validations.flops(now)
    spent = count * once
    if spent <= MOST_SHARE * total:
        return
    paid = (total - spent) * MOST_SHARE / (1 - MOST_SHARE)
    rarer = [every for every in cadences if validations.every < every < 1]
    every = next((e for e in rarer if count_of(e, steps) * once <= paid), max([validations.every, *rarer]))
    fewer = [2**k for k in reversed(range((now - 1).bit_length()))]
    fits = (n for n in fewer if count_of(every, steps) * validations.flops(n) <= paid)
    left = now if count_of(every, steps) * once <= paid else next(fits, 1)
    settings = [f"validation.every={every:.0%}"] if every > validations.every else []
    settings += [f"validation.examples_per_task={left}"] if left < now else []
    seen = f"{spent / total:.0%} of the FLOPs go to {count} validations of the report"
    yield Advice(seen, f"{' and '.join(settings)}, or a larger budget" if settings else "a larger budget")


def count_of(every: float, steps: int) -> int:
    """Return how many validations a run has: before the first step, and once in each ``every`` of the budget."""
    return min(math.ceil(1 / every - 1e-9), steps) + 1


def advise_method(
    family: str, name: str, method: BaseModel, account: str, flops: float, total: float
) -> Iterator[Advice]:
    """Advise where a method's measurements take more than a tenth of a run's FLOPs, ``total``, and keys say how many.

    Args:
        family: Its block in the recipe, ``"mixture"`` or ``"weights"``.
        name: Its ``type``.
        method: The method.
        account: Where its measurements are charged.
        flops: What they cost.
        total: FLOPs of all accounts.
    """
    keys = [key for key in _MEASURING if key in type(method).model_fields]
    if flops <= MOST_SHARE * total or not keys:
        return
    now = [f"{family}.{key} (now {_written(getattr(method, key))})" for key in keys]
    seen = f"{flops / total:.0%} of the FLOPs go to what the {family} '{name}' measures, account '{account}'"
    yield Advice(seen, f"{' or '.join(now)} so that it measures less")


def advise_epochs(epochs: Mapping[str, float], max_epochs: float | None) -> Iterator[Advice]:
    """Advise where tasks are seen often enough to be learnt by heart, and no cap was chosen."""
    often = sorted(((n, name) for name, n in epochs.items() if n > MOST_EPOCHS), reverse=True)
    if not often or max_epochs is not None:
        return
    named = ", ".join(f"{name} ({n:.0f} times)" for n, name in often[:3])
    more = f" and {len(often) - 3} more" if len(often) > 3 else ""
    seen = f"{len(often)} of {len(epochs)} tasks would be seen more than {MOST_EPOCHS} times, {named}{more}"
    yield Advice(
        seen, f"mixture.max_epochs={MOST_EPOCHS}, or a mixture nearer to the tasks' sizes, or a smaller budget"
    )


def advise_memory(memory: int, device: torch.device) -> Iterator[Advice]:
    """Advise where weights, gradients and optimizer state do not fit."""
    has = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else machine_memory()
    if memory > has:
        seen = f"weights, gradients and optimizer take {memory / 2**30:,.0f} GiB, and there are {has / 2**30:,.0f} here"
        yield Advice(seen, "lora={r: 16} to train adapters only, or a smaller model")


def _written(value: object) -> str:
    return "all" if value is None else f"{value}"
