"""Supervised tokens a second in packed rows of 1,024 tokens over the same examples padded, on Natural Instructions.

    python benchmarks/packing.py [--json] [--rounds 5]

Padded as a plain loader does: batches of 16 in drawn order, each filled up to its longest example. Apportion's own
unpacked batches are sorted by length within a step, which already saves a good part of that; the ratio to them is
printed beside it. Forward and backward of one model on the same draws; rounds take the layouts in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

from apportion.plans.build import load_data, make_model, make_sampler
from apportion.plans.recipe import parse_recipe, read_yaml
from apportion.signals.losses import example_losses
from apportion.tasks.batches import Batch, collate, pack

LENGTH, BATCH, STEP = 1024, 16, 64


def layouts(recipe: Any, data: Any) -> dict[str, list[Batch]]:
    """One optimizer step's examples, laid out in three ways."""
    method = recipe.method()
    p = method.proportions(method.init(data.sizes)).numpy()
    draws = make_sampler(recipe, data, method).draw(p, STEP)
    examples = [data.tasks.tasks[task].train.example(index) for task, index in draws]
    lengths = [len(ids) for ids, _ in examples]

    def padded(order: list[int]) -> list[Batch]:
        parts = [order[at : at + BATCH] for at in range(0, STEP, BATCH)]
        return [collate([examples[k] for k in part], [draws[k][0] for k in part], data.pad_id) for part in parts]

    rows = pack(lengths, LENGTH)
    packed = [collate([examples[k] for k in row], [0] * len(row), data.pad_id, [list(range(len(row)))]) for row in rows]
    return {
        "padded": padded(list(range(STEP))),
        "sorted": padded([int(k) for k in np.argsort(lengths, kind="stable")]),
        "packed": packed,
    }


def tokens_a_second(model: torch.nn.Module, batches: list[Batch]) -> float:
    """Train on one step's batches, without the optimizer, and return supervised tokens a second."""
    model.zero_grad()
    started = time.perf_counter()
    for batch in batches:
        (example_losses(model, batch).sum() / STEP).backward()
    return sum(batch.supervised for batch in batches) / (time.perf_counter() - started)


def packing_speedup(rounds: int = 5) -> dict[str, float]:
    """Return ``packing_speedup`` over plain padding and ``over_sorted``, over batches sorted by length: medians."""
    values = read_yaml("recipes/natural-instructions/tiny-llama/uniform.yaml")
    values["tasks"]["max_length"] = LENGTH
    values["model"]["config"]["max_position_embeddings"] = LENGTH
    recipe = parse_recipe(values)
    data = load_data(recipe)
    model = make_model(recipe, data)
    ways = layouts(recipe, data)
    for batches in ways.values():
        tokens_a_second(model, batches[:1])
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds):
        for name in sorted(ways, reverse=bool(round_ % 2)):
            rates[name].append(tokens_a_second(model, ways[name]))
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates["packed"], rates[name], strict=True))
        for name in ("padded", "sorted")
    }
    return {
        "packing_speedup": round(ratios["padded"], 3),
        "over_sorted": round(ratios["sorted"], 3),
        **{f"{name}_positions": float(sum(b.padded for b in batches)) for name, batches in ways.items()},
        "processed": float(sum(b.processed for b in ways["packed"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result = packing_speedup(options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    print(f"packed over padded {result['packing_speedup']:.2f} (at least 2), over sorted {result['over_sorted']:.2f}")
    print(
        f"positions: padded {result['padded_positions']:,.0f}, sorted {result['sorted_positions']:,.0f}, packed "
        f"{result['packed_positions']:,.0f}, of which tokens {result['processed']:,.0f}"
    )


if __name__ == "__main__":
    main()
