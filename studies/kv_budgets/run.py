"""Accuracy against what a decode step reads, for every way of reading a cache; see README.md here.

    python -m studies.kv_budgets.run [--minutes 9] [--seeds 0,1,2] [--length 4096] [--arms adamas,quest] [--perplexity]

Trains what is missing (some minutes a seed), asks what was not asked yet, and writes result.json; call it until nothing is
left. Each context is read once by a method, whole; then each budget is asked of a copy of its cache, in one decode step.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion import ApportionError
from apportion.caches import CACHES, CacheMethod
from apportion.decoding.attach import BudgetedCache, budgeted_cache, cache_argument, kv_budget
from apportion.plans.answering import load_answering
from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.plans.run import run_recipe
from studies.kv_budgets.recall import question, trained

HERE = Path(__file__).parent
MODELS = Path("runs/kv_budgets")
BUDGETS = (16, 32, 64, 128, 256)
PAIRS, ASKED, CONTEXTS = 32, 32, 16
# Every arm is run with all layers under the budget; those below with the first one whole too, as a warning.
ARMS: dict[str, dict[str, Any]] = {
    "exact": {"type": "exact"},
    "adamas": {"type": "adamas"},
    "adamas-fixed": {"type": "adamas", "thresholds": "fixed"},
    "adamas-xor": {"type": "adamas", "estimator": "xor"},
    "adamas-asym": {"type": "adamas", "estimator": "asym"},
    "quest": {"type": "quest"},
    "quest-4": {"type": "quest", "page": 4},
    "flexicache": {"type": "flexicache"},
    "snapkv": {"type": "snapkv", "window": 8},
    "streaming": {"type": "streaming"},
    "random": {"type": "random"},
}
# Real texts, how much of each is the prompt, and how much is read under the budget.
TEXTS, READ, WRITTEN = 24, 128, 96
WHOLE_FIRST = ("adamas", "quest", "random")


def arms() -> dict[str, dict[str, Any]]:
    """Return the arms by name."""
    own = {name: {**block, "dense_layers": 0} for name, block in ARMS.items()}
    return own | {f"{name}, first layer whole": {**ARMS[name], "dense_layers": 1} for name in WHOLE_FIRST}


def read(model: Any, method: CacheMethod, ids: np.ndarray) -> BudgetedCache:  # noqa: ANN401 - a transformers model
    """Return a cache that has read a context under no budget yet."""
    with kv_budget(model, method) as cache, torch.no_grad():
        model.model(input_ids=torch.from_numpy(ids)[None], **{cache_argument(model): cache})
    return cache


def ask(model: Any, cache: BudgetedCache, budget: int | None, keys: np.ndarray) -> tuple[np.ndarray, float]:  # noqa: ANN401
    """Return the answers to keys asked behind a context (k,), and the bytes that one such step reads."""
    with kv_budget(model, cache.method):
        for layer in cache.budgeted:
            layer._budget = (lambda seen: seen) if budget is None else (lambda seen: budget)
        cache.batch_repeat_interleave(len(keys))
        cache.watch.taken()
        with torch.no_grad():
            out = model(input_ids=torch.from_numpy(keys)[:, None], **{cache_argument(model): cache}).logits[:, -1]
    return out.argmax(-1).numpy(), cache.watch.read / len(keys)


def perplexity(run: Path, name: str, block: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a cell a budget: the perplexity of the second part of real texts, read token by token under the budget."""
    answering, method = load_answering(run), CACHES.build(block)
    ids = texts(answering.tokenizer, TEXTS, READ + WRITTEN + 1)
    found = []
    for budget in (None,) if name == "dense" else (16, 32, 64):
        if budget is not None and not possible(method, budgeted_cache(answering.model.config, method, None), budget):
            continue
        with kv_budget(answering.model, method, budget) as cache, torch.no_grad():
            model: Any = answering.model
            model(input_ids=ids[:, :READ], **{cache_argument(model): cache})
            losses = []
            for at in range(READ, READ + WRITTEN):
                logits = model(input_ids=ids[:, at : at + 1], **{cache_argument(model): cache}).logits[:, -1]
                losses.append(torch.nn.functional.cross_entropy(logits, ids[:, at + 1], reduction="none"))
        nll = torch.stack(losses).mean(0)
        found.append(
            {
                "task": "perplexity",
                "model": "natural-instructions",
                "seed": 0,
                "length": READ + WRITTEN,
                "arm": name,
                "budget": budget,
                "perplexity": float(nll.mean().exp()),
                "error": float(nll.std() / len(nll) ** 0.5 * nll.mean().exp()),
                "questions": TEXTS * WRITTEN,
                "read_a_step": cache.watch.read / TEXTS / WRITTEN,
            }
        )
    return found


def texts(tokenizer: Any, count: int, length: int) -> torch.Tensor:  # noqa: ANN401
    """Return the starts of real inputs that are long enough (count, length), in the order of their files."""
    folder, found = Path(os.environ["APPORTION_DATA"]) / "natural-instructions-mini", []
    for file in sorted(folder.rglob("*.json")):
        for instance in json.loads(file.read_text("utf-8"))["Instances"]:
            ids = tokenizer(instance["input"], add_special_tokens=False)["input_ids"]
            if len(ids) >= length:
                found.append(ids[:length])
    return torch.tensor(found[:: max(len(found) // count, 1)][:count])


def possible(method: CacheMethod, cache: BudgetedCache, budget: int) -> bool:
    """Return whether the method can work under the budget at all."""
    try:
        method.check(cache.shape, budget)
    except ApportionError:
        return False
    return True


def cells(kind: str, seed: int, length: int, name: str, block: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a cell a budget of one arm on one model; dense has one, without a budget."""
    model, rng = trained(kind, seed, MODELS, length), np.random.default_rng([23, length])
    method = CACHES.build(block)
    budgets: tuple[int | None, ...] = (None,) if name == "dense" else BUDGETS
    right: dict[int | None, list[float]] = {budget: [] for budget in budgets}
    bytes_read: dict[int | None, float] = {}
    for _ in range(CONTEXTS):
        ids, keys, values = question(rng, length, PAIRS, ASKED)
        whole = read(model, method, ids)
        for budget in budgets:
            if budget is not None and not possible(method, whole, budget):
                continue
            answers, bytes_read[budget] = ask(model, copy.deepcopy(whole), budget, keys)
            right[budget].append(float((answers == values).mean()))
    return [
        {
            "task": "recall",
            "model": kind,
            "seed": seed,
            "length": length,
            "arm": name,
            "budget": budget,
            "accuracy": float(np.mean(scores)),
            "error": float(np.std(scores, ddof=1) / len(scores) ** 0.5),
            "questions": CONTEXTS * ASKED,
            "read_a_step": bytes_read[budget],
        }
        for budget, scores in right.items()
        if scores
    ]


def house_model() -> Path:
    """Return the run of a model on Natural Instructions, trained where it is missing."""
    run = MODELS / "natural-instructions"
    if not (run / "summary.json").exists():
        values = read_yaml("recipes/natural-instructions/tiny-llama/proportional.yaml")
        run_recipe(parse_recipe(overridden(values, ["budget=120k"])), run)
    return run


def main() -> None:
    """Run what is left, for as long as is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--model", default="llama")
    parser.add_argument("--arms", help="those alone, by comma")
    parser.add_argument("--perplexity", action="store_true", help="of a model of the house on real texts too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = HERE / "result.json"
    held: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["cells"] if file.exists() else []
    started, left = time.monotonic(), 0
    for seed in map(int, args.seeds.split(",")):
        for name, block in {"dense": {"type": "dense"}, **arms()}.items():
            if args.arms and name not in ("dense", *args.arms.split(",")):
                continue
            key = ("recall", args.model, seed, args.length, name)
            if any((c["task"], c["model"], c["seed"], c["length"], c["arm"]) == key for c in held):
                continue
            if time.monotonic() - started > 60 * args.minutes:
                left += 1
                continue
            found = cells(args.model, seed, args.length, name, block)
            held += found
            file.write_text(json.dumps({"cells": held}, indent=1) + "\n", "utf-8")
            scores = ", ".join(f"{c['budget']}: {c['accuracy']:.3f}" for c in found)
            print(f"{args.model} seed {seed}, {args.length} tokens, {name}: {scores}", flush=True)
    for name, block in {"dense": {"type": "dense"}, **arms()}.items() if args.perplexity else ():
        if any((c["task"], c["arm"]) == ("perplexity", name) for c in held):
            continue
        if time.monotonic() - started > 60 * args.minutes:
            left += 1
            continue
        found = perplexity(house_model(), name, block)
        held += found
        file.write_text(json.dumps({"cells": held}, indent=1) + "\n", "utf-8")
        print(f"perplexity, {name}: " + ", ".join(f"{c['budget']}: {c['perplexity']:.1f}" for c in found), flush=True)
    print(f"{left} arms left" if left else "nothing left")


if __name__ == "__main__":
    main()
