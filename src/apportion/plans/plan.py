"""What a recipe would cost, before it is paid for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion.models.loading import parameters
from apportion.plans.advice import (
    Advice,
    Validations,
    advise_epochs,
    advise_memory,
    advise_method,
    advise_validation,
)
from apportion.plans.build import Data, load_data, most_epochs, report_batches, reported
from apportion.plans.recipe import Recipe
from apportion.plans.run import Staged
from apportion.plans.spending import (
    CADENCES,
    example_rates,
    with_cadence,
)
from apportion.plans.stages import together
from apportion.plans.timing import measured_pace, seconds_of, worth_timing
from apportion.plans.training import Training

BYTES = 4  # parameters, gradients and Adam's moments are kept in fp32


@dataclass(frozen=True)
class Plan:
    """An estimate for the recipe's starting mixture; a learnt one will draw otherwise. A hypernetwork's is of a sample.

    ``accounts``: tokens and FLOPs by account. ``stages``: what the run is made of, in its order: ``name``, whether it is
    ``finished``, ``flops``. ``targets``: by name, where the recipe names some, ``importance`` and how many examples are to
    ``steer`` by, to ``report`` on and to ``train`` on. ``findings``: about the data. ``memory``: bytes of weights, gradients
    and optimizer state; activations come on top. ``flops_per_second``: what this machine was just measured to do in large
    matmuls. ``seconds`` and ``seconds_range``: of the run on this machine, judged from ``timed_steps`` of it or, where that
    is 0, from its matmuls.
    """

    budget: Mapping[str, Any]
    parameters: Mapping[str, int]
    steps: int
    examples: int
    epochs: Mapping[str, float]
    mixture: Mapping[str, float]
    targets: Mapping[str, Mapping[str, float]]
    findings: Sequence[str]
    accounts: Mapping[str, Mapping[str, float]]
    stages: Sequence[Mapping[str, Any]]
    validation_every: float
    memory: int
    flops_per_second: float
    timed_steps: int
    seconds: float
    seconds_range: tuple[float, float]
    advice: Sequence[Advice]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)


def plan_recipe(recipe: Recipe, *, timed: bool = False) -> Plan:
    """Price a recipe; trains nothing that is kept, writes nothing.

    Args:
        recipe: What to price.
        timed: Whether a few steps are made, to say how long a run takes here; else the model's shapes are all that is
            built, and ``seconds`` follow from a share of this machine's rate.

    Raises:
        ApportionError: Anything wrong with the recipe, data or model's config.
    """
    data = load_data(recipe)
    recipe = with_cadence(recipe, data)
    staged = Staged(recipe, data, Path("plan"))
    staged.check()
    prices = staged.prices()
    accounts = {str(account): cost.as_dict() for account, cost in together(prices).items()}
    training = staged.training
    parts, expected = training.setup, training.expected
    assert expected is not None
    p = parts.mixture.p.numpy()
    counts = parameters(training.shapes)
    rate = measured_flops_per_second(parts.args.device, bool(parts.args.bf16))
    step = expected.accounts["train"].flops / expected.steps
    tried = timed and training.kind.timed and worth_timing(counts["total"], step, rate)
    pace = measured_pace(recipe) if tried else None
    epochs = _epochs(recipe, data, p, expected.examples)
    memory = BYTES * (counts["total"] + 3 * counts["trainable"])
    took = seconds_of(accounts, expected.validations, pace, rate)
    return Plan(
        budget=asdict(parts.ledger.budget),
        parameters=counts,
        steps=expected.steps,
        examples=expected.examples,
        epochs=epochs,
        mixture=dict(zip(data.tasks.names, p.tolist(), strict=True)),
        targets=_targets(recipe, data),
        findings=data.findings,
        accounts=accounts,
        stages=[
            {"name": stage.name, "finished": stage.finished, "flops": sum(cost.flops for cost in costs.values())}
            for stage, costs in zip(staged.stages, prices, strict=True)
        ],
        validation_every=recipe.validation.cadence,
        memory=memory,
        flops_per_second=rate,
        timed_steps=pace.steps if pace else 0,
        seconds=took.middle,
        seconds_range=(took.low, took.high),
        advice=_advice(training, {name: account["flops"] for name, account in accounts.items()}, epochs, memory),
    )


def _targets(recipe: Recipe, data: Data) -> dict[str, dict[str, float]]:
    measured = Counter(data.held_out.names[task] for task, _, _ in reported(recipe, data))
    trained = {task.name: len(task.train) for task in data.tasks.tasks}
    steer = dict(zip(data.targets.names, data.targets.steer, strict=True))
    return {
        name: {
            "importance": importance,
            "steer": len(steer[name]),
            "report": measured[name],
            "train": trained.get(name, 0),
        }
        for name, importance in data.importance.items()
    }


def _epochs(recipe: Recipe, data: Data, p: np.ndarray, examples: int) -> dict[str, float]:
    """Return how often each task would be seen; what a cap leaves undrawn goes to the others in proportion."""
    method, names = recipe.method(), data.tasks.names
    sizes = np.array([len(task.train) for task in data.tasks.tasks])
    caps = sizes * [most_epochs(recipe, data, method, name) for name in names]
    shares = p if method.unit == "examples" else example_rates(data, p)
    drawn, free = np.zeros(len(sizes)), shares > 0
    while free.any():
        wanted = np.where(free, shares, 0.0)
        wanted *= max(examples - drawn.sum(), 0.0) / wanted.sum()
        over = free & (wanted > caps)
        drawn = np.where(over, caps, drawn)
        free &= ~over
        if not over.any():
            drawn += wanted
            break
    return dict(zip(names, (drawn / sizes).tolist(), strict=True))


def _advice(
    training: Training, flops: Mapping[str, float], epochs: Mapping[str, float], memory: int
) -> tuple[Advice, ...]:
    """Return what is better changed, from what each account is expected to spend."""
    total = sum(flops.values())
    recipe, data, parts, expected = training.recipe, training.data, training.setup, training.expected
    assert expected is not None
    method, weighting = recipe.method(), recipe.weighting()

    def once(examples: int) -> float:
        fewer = recipe.validation.model_copy(update={"examples_per_task": examples})
        batches = report_batches(recipe.model_copy(update={"validation": fewer}), data, parts.args)
        return sum(parts.prices.forward(batch.work) for batch in batches)

    report = Validations(recipe.validation.cadence, recipe.validation.examples_per_task, once)
    return (
        *advise_validation(report, expected.steps, total, CADENCES),
        *advise_method(
            "selection", recipe.selection["type"], recipe.chosen(), "select", flops.get("select", 0.0), total
        ),
        *(
            advice
            for family, name, chosen in (
                ("weights", recipe.weights["type"], weighting),
                ("mixture", recipe.mixture["type"], method),
            )
            for account, spent in expected.measured[family].items()
            for advice in advise_method(family, name, chosen, account, spent, total)
        ),
        *advise_epochs(epochs, method.max_epochs),
        *advise_memory(memory, parts.args.device),
    )


def measured_flops_per_second(device: torch.device, bf16: bool) -> float:
    """Measure matmuls of a middling size for about a second; real training reaches a part of it."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(1024, 1024, device=device, dtype=dtype) for _ in range(2))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.5:
        a @ b
        done += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return done * 2 * 1024**3 / (time.perf_counter() - started)
