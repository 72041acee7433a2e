"""What a run is expected to spend, by account, and how often it is validated where that is left to its price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apportion.budget import Account
from apportion.budget.prices import Cost, Work
from apportion.plans.advice import MOST_SHARE, count_of
from apportion.plans.build import Data, Setup, assemble, make_model, make_sampler
from apportion.plans.recipe import CADENCES, Recipe
from apportion.signals._records import Outlook
from apportion.signals._signal import cost_of
from apportion.tasks.batches import work_of

SAMPLED_STEPS = 32
FLOP_ROUNDS = 6  # of finding how many examples a budget in FLOPs reaches for


@dataclass(frozen=True)
class Expected:
    """What a run is expected to spend, by account: ``supervised`` and ``processed`` tokens, ``flops``.

    ``measured`` are the FLOPs of what each method measures, by its family and account, parts of the accounts above.
    """

    steps: int
    examples: int
    validations: int
    accounts: Mapping[Account, Cost]
    measured: Mapping[str, Mapping[str, float]]

    @property
    def flops(self) -> float:
        """FLOPs of all accounts."""
        return sum(cost.flops for cost in self.accounts.values())


def expected_spending(recipe: Recipe, data: Data, parts: Setup, before: float = 0.0) -> Expected:
    """Return what training spends under its starting mixture, which a learnt one leaves.

    Args:
        recipe: What is trained.
        data: Its tasks.
        parts: Its budget and prices.
        before: FLOPs that are spent before, out of a budget in FLOPs.
    """
    p, prices, budget = parts.mixture.p.numpy(), parts.prices, parts.ledger.budget
    per_draw = _sampled(recipe, data, parts, p) if prices.itemised else _expected(data, parts, p)
    if budget.unit != "flops":
        examples = max(int(budget.limit / per_draw[budget.unit]), 1)
        return _spending(recipe, data, parts, examples, per_draw)
    # All accounts are paid from one budget: what is measured leaves the rest to train with.
    limit = budget.limit - before
    examples = max(int(limit / per_draw["train_flops"]), 1)
    for _ in range(FLOP_ROUNDS):
        expected = _spending(recipe, data, parts, examples, per_draw)
        each = (expected.flops - expected.accounts["validation"].flops) / examples
        examples = max(int(examples + (limit - expected.flops) / each), 1)
    return _spending(recipe, data, parts, examples, per_draw)


def _spending(recipe: Recipe, data: Data, parts: Setup, examples: int, per_draw: Mapping[str, float]) -> Expected:
    prices = parts.prices
    steps = -(-examples // (parts.args.per_device_train_batch_size * parts.args.gradient_accumulation_steps))
    validations = count_of(recipe.validation.cadence, steps)
    draw = Cost(per_draw["supervised"], per_draw["processed"], per_draw["train_flops"])
    outlook = Outlook(steps, examples, draw, per_draw["forward_flops"])
    accounts: dict[Account, Cost] = {
        "train": draw.times(examples),
        "validation": cost_of(parts.report, prices.forward).times(validations),
        "meta": Cost(),
    }
    measured: dict[str, dict[str, float]] = {}
    for runner in parts.runners:
        priced = runner.price(outlook)
        measured[runner.name] = {account: cost.flops for account, cost in priced.items()}
        accounts |= {account: accounts.get(account, Cost()) + cost for account, cost in priced.items()}
    if prices.ahead().flops:
        accounts["generate"] = prices.ahead()
    return Expected(steps, examples, validations, accounts, measured)


def with_cadence(recipe: Recipe, data: Data) -> Recipe:
    """Return the recipe with ``validation.every`` written out where it was left to the run's price.

    The most frequent of `CADENCES` whose validations cost at most `MOST_SHARE` of everything; the rarest, one before
    and one after training, where none does. It follows from model, data and budget alone: a resumed run finds the same, and
    so do the arms and seeds of a comparison, which are priced as drawing uniformly.
    """
    if recipe.validation.every is not None:
        return recipe
    uniform = {"mixture": {"type": "uniform"}, "weights": {"type": "uniform"}, "seed": 0}
    prices = recipe.model_kind().prices(make_model(recipe, data, meta=True))
    parts = assemble(recipe.model_copy(update=uniform), data, prices, Path("plan"))
    for every in CADENCES:
        validation = recipe.validation.model_copy(update={"every": every})
        recipe = recipe.model_copy(update={"validation": validation})
        expected = expected_spending(recipe.model_copy(update=uniform), data, parts)
        if expected.accounts["validation"].flops <= MOST_SHARE * expected.flops:
            break
    return recipe


def example_rates(data: Data, p: np.ndarray) -> np.ndarray:
    """Return the shares of draws, (T,), where ``p`` shares out supervised tokens."""
    rates = p / np.array([task.train.supervised.mean() for task in data.tasks.tasks])
    return rates / rates.sum()


def _expected(data: Data, parts: Setup, p: np.ndarray) -> dict[str, float]:
    rates = p if parts.mixture.mixture.unit == "examples" else example_rates(data, p)
    means = dict.fromkeys(("supervised", "processed", "train_flops", "forward_flops"), 0.0)
    for rate, task in zip(rates.tolist(), data.tasks.tasks, strict=True):
        lengths = task.train.processed
        means["supervised"] += rate * float(task.train.supervised.mean())
        means["processed"] += rate * float(lengths.mean())
        work = Work(float(lengths.mean()), float((lengths**2).mean()))
        means["train_flops"] += rate * parts.train_flops(work)
        means["forward_flops"] += rate * parts.prices.forward(work)
    return means


def _sampled(recipe: Recipe, data: Data, parts: Setup, p: np.ndarray) -> dict[str, float]:
    """Return the means of a draw over a sample of steps: a hypernetwork's price depends on which tasks share a batch."""
    sampler, splits = make_sampler(recipe, data, parts.mixture.mixture), [task.train for task in data.tasks.tasks]
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
            totals["forward_flops"] += parts.prices.forward(work)
    return {key: total / (SAMPLED_STEPS * size * micro) for key, total in totals.items()}
