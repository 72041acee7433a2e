"""What a run is expected to spend, by account, and how often it is validated where that is left to its price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apportion.budget.prices import Prices, Work
from apportion.mixtures._mixture import GradientGuided, LossGuided
from apportion.models.tagi.prices import TagiPrices
from apportion.plans.advice import MOST_SHARE, count_of
from apportion.plans.build import Data, Setup, assemble, make_model, make_sampler, prices_of, train_pool
from apportion.plans.recipe import CADENCES, Recipe
from apportion.tasks.batches import Batch, work_of
from apportion.tasks.validation import Picked, batched, rotating
from apportion.weights._weighting import StateGuided

SAMPLED_STEPS = 32
SAMPLED_TURNS = 4
FLOP_ROUNDS = 6  # of finding how many examples a budget in FLOPs reaches for


@dataclass(frozen=True)
class Expected:
    """What a run is expected to spend, by account: ``supervised`` and ``processed`` tokens, ``flops``.

    ``steering`` and ``anchors`` are the FLOPs of what mixture and weights measure at a cadence of their own, parts of the
    accounts `meta` and `validation`.
    """

    steps: int
    examples: int
    validations: int
    accounts: Mapping[str, Mapping[str, float]]
    steering: float
    anchors: float

    @property
    def flops(self) -> float:
        """FLOPs of all accounts."""
        return sum(account["flops"] for account in self.accounts.values())


def expected_spending(recipe: Recipe, data: Data, parts: Setup) -> Expected:
    """Return what a run spends under its starting mixture, which a learnt one leaves."""
    p, flops, budget = parts.steering.p.numpy(), parts.flops, parts.ledger.budget
    per_draw = _sampled(recipe, data, parts, p) if isinstance(flops, TagiPrices) else _expected(data, parts, p)
    if budget.unit != "flops":
        examples = max(int(budget.limit / per_draw[budget.unit]), 1)
        return _spending(recipe, data, parts, examples, per_draw)
    # All accounts are paid from one budget: what is measured leaves the rest to train with.
    examples = max(int(budget.limit / per_draw["train_flops"]), 1)
    for _ in range(FLOP_ROUNDS):
        expected = _spending(recipe, data, parts, examples, per_draw)
        each = (expected.flops - expected.accounts["validation"]["flops"]) / examples
        examples = max(int(examples + (budget.limit - expected.flops) / each), 1)
    return _spending(recipe, data, parts, examples, per_draw)


def _spending(recipe: Recipe, data: Data, parts: Setup, examples: int, per_draw: Mapping[str, float]) -> Expected:
    flops = parts.flops
    steps = -(-examples // (parts.args.per_device_train_batch_size * parts.args.gradient_accumulation_steps))
    validations = count_of(recipe.validation.cadence, steps)
    anchors, steering = _anchors(recipe, parts, steps), _meta(recipe, data, parts, steps, examples, per_draw)
    accounts = {
        "train": {
            "supervised": examples * per_draw["supervised"],
            "processed": examples * per_draw["processed"],
            "flops": examples * per_draw["train_flops"],
        },
        "validation": _sum(_passes(parts.report, flops.forward, validations), anchors),
        "meta": _sum(steering, _second_look(parts, examples, per_draw)),
    }
    ahead = reading_ahead(flops)
    if isinstance(flops, TagiPrices) and ahead:
        accounts["generate"] = {"supervised": 0.0, "processed": float(sum(flops.lengths)), "flops": ahead}
    return Expected(steps, examples, validations, accounts, steering["flops"], anchors["flops"])


def reading_ahead(flops: Prices) -> float:
    """Return the FLOPs of a hypernetwork's frozen base reading all instructions before it trains, else 0."""
    return flops.reading_all() if isinstance(flops, TagiPrices) and flops.frozen else 0.0


def with_cadence(recipe: Recipe, data: Data) -> Recipe:
    """Return the recipe with ``validation.every`` written out where it was left to the run's price.

    The most frequent of `CADENCES` whose validations cost at most `MOST_SHARE` of everything; the rarest, one before
    and one after training, where none does. It follows from model, data and budget alone: a resumed run finds the same, and
    so do the arms and seeds of a comparison, which are priced as drawing uniformly.
    """
    if recipe.validation.every is not None:
        return recipe
    uniform = {"mixture": {"type": "uniform"}, "weights": {"type": "uniform"}, "seed": 0}
    parts = assemble(
        recipe.model_copy(update=uniform), data, prices_of(make_model(recipe, data, meta=True)), Path("plan")
    )
    for every in CADENCES:
        validation = recipe.validation.model_copy(update={"every": every})
        recipe = recipe.model_copy(update={"validation": validation})
        expected = expected_spending(recipe.model_copy(update=uniform), data, parts)
        if expected.accounts["validation"]["flops"] <= MOST_SHARE * expected.flops:
            break
    return recipe


def example_rates(data: Data, p: np.ndarray) -> np.ndarray:
    """Return the shares of draws, (T,), where ``p`` shares out supervised tokens."""
    rates = p / np.array([task.train.supervised.mean() for task in data.tasks.tasks])
    return rates / rates.sum()


def _expected(data: Data, parts: Setup, p: np.ndarray) -> dict[str, float]:
    rates = p if parts.steering.mixture.unit == "examples" else example_rates(data, p)
    means = dict.fromkeys(("supervised", "processed", "train_flops", "forward_flops"), 0.0)
    for rate, task in zip(rates.tolist(), data.tasks.tasks, strict=True):
        lengths = task.train.processed
        means["supervised"] += rate * float(task.train.supervised.mean())
        means["processed"] += rate * float(lengths.mean())
        work = Work(float(lengths.mean()), float((lengths**2).mean()))
        means["train_flops"] += rate * parts.train_flops(work)
        means["forward_flops"] += rate * parts.flops.forward(work)
    return means


def _sampled(recipe: Recipe, data: Data, parts: Setup, p: np.ndarray) -> dict[str, float]:
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


def _anchors(recipe: Recipe, parts: Setup, steps: int) -> dict[str, float]:
    method = recipe.weighting()
    times = -(-steps // method.refresh) if isinstance(method, StateGuided) else 0
    return _passes(parts.weighing.anchors, parts.flops.forward, times)


def _second_look(parts: Setup, examples: int, per_draw: Mapping[str, float]) -> dict[str, float]:
    times = examples if parts.weighing.looks_twice else 0
    keys = {"supervised": "supervised", "processed": "processed", "flops": "forward_flops"}
    return {key: times * per_draw[name] for key, name in keys.items()}


def _meta(
    recipe: Recipe, data: Data, parts: Setup, steps: int, examples: int, per_draw: Mapping[str, float]
) -> dict[str, float]:
    method, flops = recipe.method(), parts.flops
    if not isinstance(method, LossGuided | GradientGuided):
        return {"supervised": 0.0, "processed": 0.0, "flops": 0.0}
    size = parts.args.per_device_eval_batch_size

    def drawn(pool: Sequence[Sequence[Picked]], size: int, turns: int) -> list[Batch]:
        chosen = (rotating(pool, method.examples_per_task, turn) for turn in range(turns))
        return [batch for picked in chosen for batch in batched(picked, size, data.pad_id)]

    if isinstance(method, LossGuided):
        measured = drawn(data.steer, size, SAMPLED_TURNS)
        once = sum(flops.forward(batch.work) for batch in measured) / SAMPLED_TURNS
        count = _measurements(method, once, examples * per_draw["train_flops"] / steps, steps)
        return _passes(measured, flops.forward, count / SAMPLED_TURNS)

    # From the second step on; the steps that are read are counted from each refresh.
    whole, rest = divmod(max(steps - 1, 0), method.refresh)
    refreshes = whole + (rest > 0)
    turns = min(refreshes, SAMPLED_TURNS)
    times = refreshes / max(turns, 1)

    def gradient(work: Work) -> float:
        return flops.forward(work) + flops.backward(work)

    if method.estimator == "in_run":
        measured = drawn(data.steer, size, turns)
        spent = _passes(measured, gradient, times)
        again = flops.forward if len(measured) > turns else (lambda work: 0.0)
        spent["flops"] += _passes(measured, again, times)["flops"]
        read = whole * method.reads_within(method.refresh) + method.reads_within(rest)
        return {**spent, "flops": spent["flops"] + read * flops.in_run_read(examples * per_draw["processed"] / steps)}
    size = method.examples_per_task * len(data.steer)
    ahead = gradient if method.estimator == "unrolled" else flops.jvp
    return _sum(
        _passes(drawn(train_pool(data), size, turns), lambda work: gradient(work) + ahead(work), times),
        _passes(drawn(data.steer, size, turns), lambda work: gradient(work) + flops.forward(work), times),
    )


def _measurements(method: LossGuided, once: float, step_flops: float, steps: int) -> int:
    """Return how many measurements of ``once`` FLOPs each a run makes: when they are due, and training has paid for them."""
    count = due = 0
    while (at := max(due, math.ceil((count + 1) * once / (method.max_cost * step_flops)))) < steps:
        count, due = count + 1, at + method.refresh
    return count
