"""What a recipe would cost, before it is paid for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion._errors import ApportionError
from apportion.budget.prices import Work
from apportion.hypernets.prices import TagiPrices
from apportion.mixtures._mixture import GradientGuided, LossGuided
from apportion.plans.build import Data, Parts, assemble, load_data, make_model, make_sampler, prices_of
from apportion.plans.fit import check_fit
from apportion.plans.recipe import Recipe
from apportion.tasks.batches import Batch, work_of
from apportion.training.models import parameters
from apportion.training.validation import batched, rotating
from apportion.weights._weighting import StateGuided

SAMPLED_STEPS = 32
BYTES = 4  # parameters, gradients and Adam's moments are kept in fp32


@dataclass(frozen=True)
class Plan:
    """An estimate for the recipe's starting mixture; a learnt one will draw otherwise. A hypernetwork's is of a sample.

    ``accounts``: tokens and FLOPs by account. ``memory``: bytes of weights, gradients and optimizer state; activations
    come on top. ``seconds``: total FLOPs over what this machine was just measured to do.
    """

    budget: Mapping[str, Any]
    parameters: Mapping[str, int]
    steps: int
    examples: int
    epochs: Mapping[str, float]
    mixture: Mapping[str, float]
    accounts: Mapping[str, Mapping[str, float]]
    memory: int
    flops_per_second: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)


def plan_recipe(recipe: Recipe) -> Plan:
    """Price a recipe; builds the model's shapes only, trains nothing, writes nothing.

    Raises:
        ApportionError: Anything wrong with the recipe, data or model's config.
    """
    if recipe.hypernet is not None and recipe.hypernet.teachers is not None:
        raise ApportionError(
            "A plan does not price LoRA teachers, runs of their own: leave out 'hypernet.teachers' to plan the rest."
        )
    data = load_data(recipe)
    model = make_model(recipe, data, meta=True)
    flops = prices_of(model)
    parts = assemble(recipe, data, flops, Path("plan"))
    reading = flops.reading_all() if isinstance(flops, TagiPrices) and flops.frozen else 0.0
    check_fit(model, data, parts, reading)
    p = parts.steering.p.numpy()
    per_draw = _sampled(recipe, data, parts, p) if isinstance(flops, TagiPrices) else _expected(data, parts, p)
    unit = {"supervised": "supervised", "processed": "processed", "flops": "train_flops"}[parts.ledger.budget.unit]
    examples = max(int(parts.ledger.budget.limit / per_draw[unit]), 1)
    step = parts.args.per_device_train_batch_size * parts.args.gradient_accumulation_steps
    steps = -(-examples // step)
    accounts = {
        "train": {
            "supervised": examples * per_draw["supervised"],
            "processed": examples * per_draw["processed"],
            "flops": examples * per_draw["train_flops"],
        },
        "validation": _sum(
            _passes(parts.report, flops.forward, 1 / recipe.validation.every + 1), _anchors(recipe, parts, steps)
        ),
        "meta": _sum(
            _meta(recipe, data, parts, steps, examples * per_draw["processed"]), _second_look(parts, examples, per_draw)
        ),
    }
    if isinstance(flops, TagiPrices) and flops.frozen:
        accounts["generate"] = {"supervised": 0.0, "processed": float(sum(flops.lengths)), "flops": reading}
    counts = parameters(model)
    rate = measured_flops_per_second(parts.args.device, bool(parts.args.bf16))
    sizes = np.array([len(task.train) for task in data.tasks.tasks])
    shares = p if recipe.method().unit == "examples" else _example_rates(data, p)
    return Plan(
        budget=asdict(parts.ledger.budget),
        parameters=counts,
        steps=steps,
        examples=examples,
        epochs=dict(zip(data.tasks.names, (examples * shares / sizes).tolist(), strict=True)),
        mixture=dict(zip(data.tasks.names, p.tolist(), strict=True)),
        accounts=accounts,
        memory=BYTES * (counts["total"] + 3 * counts["trainable"]),
        flops_per_second=rate,
        seconds=sum(account["flops"] for account in accounts.values()) / rate,
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


def _example_rates(data: Data, p: np.ndarray) -> np.ndarray:
    rates = p / np.array([task.train.supervised.mean() for task in data.tasks.tasks])
    return rates / rates.sum()


def _expected(data: Data, parts: Parts, p: np.ndarray) -> dict[str, float]:
    rates = p if parts.steering.mixture.unit == "examples" else _example_rates(data, p)
    means = dict.fromkeys(("supervised", "processed", "train_flops", "forward_flops"), 0.0)
    for rate, task in zip(rates.tolist(), data.tasks.tasks, strict=True):
        lengths = task.train.processed
        means["supervised"] += rate * float(task.train.supervised.mean())
        means["processed"] += rate * float(lengths.mean())
        work = Work(float(lengths.mean()), float((lengths**2).mean()))
        means["train_flops"] += rate * parts.train_flops(work)
        means["forward_flops"] += rate * parts.flops.forward(work)
    return means


def _sampled(recipe: Recipe, data: Data, parts: Parts, p: np.ndarray) -> dict[str, float]:
    """Return the means of a draw over a sample of steps: a hypernetwork's price depends on which tasks share a batch."""
    sampler, splits = make_sampler(recipe, data, parts.steering.mixture), [task.train for task in data.tasks.tasks]
    size, micro = parts.args.gradient_accumulation_steps, parts.args.per_device_train_batch_size
    totals = dict.fromkeys(("supervised", "processed", "train_flops", "forward_flops"), 0.0)
    for _ in range(SAMPLED_STEPS):
        draws = sorted(sampler.draw(p, size * micro), key=lambda draw: int(splits[draw[0]].processed[draw[1]]))
        for at in range(0, len(draws), micro):
            part = draws[at : at + micro]
            work = work_of([splits[task].example(index) for task, index in part], [task for task, _ in part])
            totals["supervised"] += sum(int(splits[task].supervised[index]) for task, index in part)
            totals["processed"] += work.tokens
            totals["train_flops"] += parts.train_flops(work)
            totals["forward_flops"] += parts.flops.forward(work)
    return {key: total / (SAMPLED_STEPS * size * micro) for key, total in totals.items()}


def _passes(batches: list[Batch], price: Any, times: float) -> dict[str, float]:  # noqa: ANN401
    return {
        "supervised": times * sum(b.supervised for b in batches),
        "processed": times * sum(b.processed for b in batches),
        "flops": times * sum(price(b.work) for b in batches),
    }


def _sum(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {key: a[key] + b[key] for key in a}


def _anchors(recipe: Recipe, parts: Parts, steps: int) -> dict[str, float]:
    method = recipe.weighting()
    times = -(-steps // method.refresh) if isinstance(method, StateGuided) else 0
    return _passes(parts.weighing.anchors, parts.flops.forward, times)


def _second_look(parts: Parts, examples: int, per_draw: Mapping[str, float]) -> dict[str, float]:
    times = examples if parts.weighing.looks_twice else 0
    keys = {"supervised": "supervised", "processed": "processed", "flops": "forward_flops"}
    return {key: times * per_draw[name] for key, name in keys.items()}


def _meta(recipe: Recipe, data: Data, parts: Parts, steps: int, processed: float) -> dict[str, float]:
    method, flops = recipe.method(), parts.flops
    if not isinstance(method, LossGuided | GradientGuided):
        return {"supervised": 0.0, "processed": 0.0, "flops": 0.0}
    size = parts.args.per_device_eval_batch_size
    batches = batched(rotating(data.steer, method.examples_per_task, 0), size, data.pad_id)
    if isinstance(method, LossGuided):
        return _passes(batches, flops.forward, 1 / method.every)

    def gradient(work: Work) -> float:
        return flops.forward(work) + flops.backward(work)

    if method.estimator == "in_run":
        spent = _passes(batches, gradient, steps / method.refresh)
        again = flops.forward if len(batches) > 1 else (lambda work: 0.0)
        spent["flops"] += _passes(batches, again, steps / method.refresh)["flops"]
        read = sum(method.reads_at(age) for age in range(method.refresh)) / method.refresh
        return {**spent, "flops": spent["flops"] + read * flops.in_run_read(processed)}
    # Training and validation examples alike are taken forward and back, the training ones twice, the others measured too.
    return _passes(batches, lambda work: 3 * gradient(work), steps / method.refresh)
