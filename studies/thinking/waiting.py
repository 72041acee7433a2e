"""Does waiting help: ends of thinking that are put off, on models that have seen corrections and on models that have not.

    python -m studies.thinking.waiting [--minutes 9] [--seeds 0,1,2]

Trains what is missing and writes waiting.json; call it until nothing is left.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apportion.budget import InferenceBudget, ThinkingBudget
from apportion.caches import CACHES
from apportion.decoding.requests import Request
from apportion.plans.answering import load_answering
from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.plans.reinforce import Reinforcing
from apportion.plans.reinforcing import parse_reinforcing
from apportion.plans.run import run_recipe
from studies.thinking.arms import TASKS
from studies.thinking.run import EACH, HERE, RUNS, recipe_of, started

# Share of the training traces that hold a slip and its correction.
MODELS = {"plain": 0.0, "corrected": 0.1}
BUDGETS: dict[str, dict[str, int]] = {
    "as it ends": {"most": 80},
    "ignore 1": {"most": 80, "ignore": 1},
    "ignore 2": {"most": 80, "ignore": 2},
    "at least 24": {"most": 80, "least": 24},
}


def model_of(kind: str, seed: int) -> Path:
    """Return the run of supervision, trained where it is missing."""
    task = TASKS["arithmetic"]
    if not MODELS[kind]:
        return started(task, seed)
    folder = RUNS / f"{task.sft}-{kind}-{seed}"
    if not (folder / "summary.json").exists():
        values = overridden(read_yaml(task.recipe), [f"seed={seed}", f"tasks.correct={MODELS[kind]}"])
        run_recipe(parse_recipe(values), folder)
    return folder


def cell(kind: str, name: str, seed: int, temperature: float) -> dict[str, Any]:
    """Answer the problems of the reporting halves under one budget."""
    task, place = TASKS["arithmetic"], model_of(kind, seed)
    recipe = recipe_of(task, "brpo-uniform", seed)
    recipe["rl"]["start"] = str(place)
    recipe["validation"] = {"every": 1.0, "examples_per_task": EACH}
    stage = Reinforcing(parse_reinforcing(recipe), RUNS / "measured")
    answering, roller = load_answering(place), stage.rollouts.roller
    budget = InferenceBudget(thinking=ThinkingBudget(**BUDGETS[name]), answer=4)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    engine = answering.engine(CACHES.build("dense"), budget, batch_size=256, sampling=sampling, tags=roller.ids)
    problems = stage.problems.measured
    answers = [
        one for batch in engine.answer([Request(p.row, p.ids) for p in problems], seed=99 + seed) for one in batch
    ]
    right = np.array([one.text.strip() in p.references for one, p in zip(answers, problems, strict=True)], dtype=float)
    return {
        "model": kind,
        "budget": name,
        "seed": seed,
        "temperature": temperature,
        "accuracy": float(right.mean()),
        "error": float(right.std(ddof=1) / math.sqrt(len(right))),
        "used": float(np.mean([len(one.thinking_ids) for one in answers])),
        "inserted": float(np.mean([one.kinds.count("inserted") for one in answers])),
        "examples": len(right),
    }


def main() -> None:
    """Run what is left, for as long as is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = HERE / "waiting.json"
    begun, left = time.monotonic(), 0
    for seed in map(int, args.seeds.split(",")):
        for kind in MODELS:
            for name in BUDGETS:
                for temperature in (0.0, 1.0):
                    held = json.loads(file.read_text("utf-8"))["cells"] if file.exists() else []
                    key = (kind, name, seed, temperature)
                    if any((c["model"], c["budget"], c["seed"], c["temperature"]) == key for c in held):
                        continue
                    if time.monotonic() - begun > 60 * args.minutes:
                        left += 1
                        continue
                    found = cell(kind, name, seed, temperature)
                    file.write_text(json.dumps({"cells": [*held, found]}, indent=1) + "\n", "utf-8")
                    print(*key, f"{found['accuracy']:.3f} with {found['used']:.1f} tokens", flush=True)
    print(f"{left} cells left" if left else "nothing left")


if __name__ == "__main__":
    main()
