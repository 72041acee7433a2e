"""The arms, and the one rule by which those that score a pool or train proxies share a total budget out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apportion import ApportionError

# Of the total budget: the most for scoring, and the most for a warm-up before it.
SCORING, WARMING = 1 / 3, 1 / 6
# A selection keeps the best quarter of what it scored, and no more than training sees twice.
KEPT, EPOCHS = 4, 2
# Trials of the searches, each of its share of the budget: about a quarter of it together.
TRIALS, TRIAL = 12, 0.02

# Of the targets' examples, so many are looked at: their passes are paid before the first of the pool.
ANCHORS = 64

PROPORTIONAL = {"mixture": {"type": "proportional"}}
ARMS: dict[str, dict[str, Any]] = {
    "uniform": {"mixture": {"type": "uniform"}},
    "proportional": PROPORTIONAL,
    "random": {"selection": {"type": "random"}, **PROPORTIONAL},
    "bm25": {"selection": {"type": "bm25", "anchors": ANCHORS}, **PROPORTIONAL},
    "embedding": {"selection": {"type": "embedding", "anchors": ANCHORS}, **PROPORTIONAL},
    "perplexity": {"selection": {"type": "perplexity"}, **PROPORTIONAL},
    "less": {"selection": {"type": "less", "anchors": ANCHORS}, **PROPORTIONAL},
    "less-exact": {"selection": {"type": "less", "projection": None, "anchors": ANCHORS}, **PROPORTIONAL},
    "weights-adapt": {"weights": {"type": "adapt", "centred": True, "tau": 0.1, "normalise": True}, **PROPORTIONAL},
    "weights-bm25": {"weights": {"type": "bm25", "tau": 0.1, "normalise": True}, **PROPORTIONAL},
    "adapt": {"mixture": {"type": "adapt"}},
    "upsample": {"mixture": {"type": "upsample", "share": 0.3}},
    "probes": {"mixture": {"type": "probes"}},
    "bandit": {"mixture": {"type": "bandit"}},
    "doremi": {"mixture": {"type": "doremi", "trial": 0.1}},
    "regmix": {"mixture": {"type": "regmix", "trials": TRIALS, "trial": TRIAL}},
}


def with_budget(values: dict[str, Any], budget: float) -> dict[str, Any]:
    """Return the recipe under a total budget, its selection scoring as many examples as its part of that pays for."""
    bounded = {**values, "budget": {"total": f"{budget:.4g} FLOPs"}}
    selection = values.get("selection")
    if selection is None:
        return bounded
    # What each costs on the whole pool, by the house's own prices.
    whole = {**bounded, "budget": {"total": "1e30 FLOPs"}}
    scoring, warming, examples, each = _prices(whole)
    # What the targets cost is paid whatever part of the pool is scored.
    half, *_ = _prices({**whole, "selection": {**selection, "pool": 0.5}})
    fixed = 2 * half - scoring
    warm = {}
    if warming:
        warm = {"warmup": float(f"{min(1.0, selection.get('warmup', 0.05) * WARMING * budget / warming):.3g}")}
    share = min(1.0, max(0.0, SCORING * budget - fixed) / (scoring - fixed)) if scoring else 1.0
    if not share:
        raise ApportionError(f"the targets' {ANCHORS} examples alone take {fixed:.2g} FLOPs")
    spent = fixed + (scoring - fixed) * share + (WARMING * budget if warming else 0.0)
    kept = max(32, int(min(share * examples / KEPT, (budget - spent) / each / EPOCHS)))
    part = {} if share == 1 else {"pool": float(f"{share:.3g}")}
    return {**bounded, "selection": {**selection, **warm, **part, "limit": {"examples": kept}}}


def _prices(values: dict[str, Any]) -> tuple[float, float, int, float]:
    """Return the FLOPs of scoring all and of warming up, the examples there are, and the FLOPs of training on one."""
    from apportion.budget import Budget, Ledger
    from apportion.plans.build import load_data, make_model
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import selection_stages

    recipe = parse_recipe(values)
    data, ledger = load_data(recipe), Ledger(Budget("flops", 1e30))
    *before, scoring = selection_stages(recipe, data, Path("none"), Path("none"), lambda: None)
    prices = recipe.model_kind().prices(make_model(recipe, data, meta=True))
    examples = sum(len(task.train) for task in data.tasks.tasks)
    tokens = sum(int(task.train.processed.sum()) for task in data.tasks.tasks)
    pairs = sum(int((task.train.processed**2).sum()) for task in data.tasks.tasks)
    from apportion.budget.prices import Work

    def flops(stage: Any) -> float:  # noqa: ANN401
        return sum(cost.flops for cost in stage.price(ledger).values())

    return flops(scoring), sum(map(flops, before)), examples, prices.train(Work(tokens, pairs)) / examples
