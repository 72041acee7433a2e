"""Accuracy against the thinking that was used, of models trained in different ways with equal generated tokens.

    python -m studies.thinking.run [--minutes 9] [--seeds 0,1,2] [--task arithmetic] [--only brpo-uniform,...]

Trains what is missing (a model by supervision a seed, then every arm from it), measures what was not measured yet, and
writes result.json; call it until nothing is left.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from apportion.plans.answering import load_answering
from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.plans.reinforce import Reinforcing, reinforce_recipe
from apportion.plans.reinforcing import parse_reinforcing
from apportion.plans.run import run_recipe
from apportion.runs.reinforce import BudgetCurve
from apportion.training.rl.recorder import curve_of
from apportion.training.rl.traces import Trace
from studies.thinking.arms import ARMS, TASKS, Task

HERE = Path(__file__).parent
RUNS = Path("runs/thinking")
# Examples of each task's reporting half that all arms are judged on.
EACH = 40


def started(task: Task, seed: int) -> Path:
    """Return the run of supervision, trained where it is missing."""
    folder = RUNS / f"{task.sft}-{seed}"
    if not (folder / "summary.json").exists():
        run_recipe(parse_recipe(overridden(read_yaml(task.recipe), [f"seed={seed}", *task.overrides])), folder)
    return folder


def recipe_of(task: Task, arm: str, seed: int) -> dict[str, Any]:
    """Return an arm's recipe."""
    values = read_yaml("recipes/thinking/brpo.yaml")
    base = {**values["rl"], "start": str(RUNS / f"{task.sft}-{seed}"), "budgets": list(task.budgets)}
    rl = {**base, **(ARMS[arm] or {})}
    if rl.get("type") == "grpo":
        rl = {key: value for key, value in rl.items() if key not in ("prior", "summaries", "baseline")}
        rl["budgets"] = [task.budgets[-1]]
    tasks = {**values["tasks"], **task.tasks}
    return {**values, "rl": rl, "tasks": tasks, "budget": {"generated": task.generated}, "seed": seed}


def measured(task: Task, recipe: dict[str, Any], model: nn.Module, seed: int) -> tuple[BudgetCurve, list[Trace]]:
    """Return a model's curve at the task's fine budgets, on examples of the reporting halves, and the traces of it."""
    validation = {"every": 1.0, "examples_per_task": EACH}
    stage = Reinforcing(parse_reinforcing({**recipe, "validation": validation}), RUNS / "measured")
    roller = stage.rollouts.roller
    fine = replace(roller, spec=roller.spec.model_copy(update={"budgets": list(task.measured)}))
    traces = fine.traces(model, stage.problems.measured, lambda served, inserted: None, summaries=1, seed=777 + seed)
    return curve_of(traces, task.measured), traces


def cell(task: Task, arm: str, seed: int) -> dict[str, Any]:
    """Train an arm where it is missing, and measure it."""
    start = started(task, seed)
    folder = start
    if ARMS[arm] is not None:
        folder = RUNS / f"{task.name}-{arm}-{seed}"
        if not (folder / "summary.json").exists():
            reinforce_recipe(parse_reinforcing(recipe_of(task, arm, seed)), folder)
    model = load_answering(folder).model
    curve, traces = measured(task, recipe_of(task, "brpo-uniform", seed), model, seed)
    ledger = json.loads((folder / "ledger.json").read_text("utf-8"))["accounts"]
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    by = dict(zip(map(str, curve["budgets"]), curve["accuracy"], strict=True))
    return {
        "task": task.name,
        "arm": arm,
        "seed": seed,
        "accuracy_by_budget": by,
        "thinking_used_by_budget": dict(zip(map(str, curve["budgets"]), curve["used"], strict=True)),
        "forced_by_budget": dict(zip(map(str, curve["budgets"]), curve["forced"], strict=True)),
        "area": curve["area"],
        "examples": curve["prompts"],
        "own": {
            "accuracy": float(np.mean([trace.summaries[-1][0].right for trace in traces])),
            "used": float(np.mean([len(trace.thinking) for trace in traces])),
            "forced": float(np.mean([trace.forced for trace in traces])),
        },
        "generated_tokens": 0 if ARMS[arm] is None else summary["generated"],
        "steps": 0 if ARMS[arm] is None else summary["steps"],
        "flops_by_account": {name: account["flops"] for name, account in ledger.items() if account["flops"]},
        "seconds": summary["seconds"],
    }


def cells(file: Path) -> list[dict[str, Any]]:
    """Return what is there by now: other processes may have added to it."""
    return json.loads(file.read_text("utf-8"))["cells"] if file.exists() else []


def main() -> None:
    """Run what is left, for as long as is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--task", default="arithmetic", choices=sorted(TASKS))
    parser.add_argument("--only", default=",".join(ARMS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = HERE / "result.json"
    begun, left = time.monotonic(), 0
    task = TASKS[args.task]
    for seed in map(int, args.seeds.split(",")):
        for arm in args.only.split(","):
            if any((c["task"], c["arm"], c["seed"]) == (task.name, arm, seed) for c in cells(file)):
                continue
            if time.monotonic() - begun > 60 * args.minutes:
                left += 1
                continue
            found = cell(task, arm, seed)
            file.write_text(json.dumps({"cells": [*cells(file), found]}, indent=1) + "\n", "utf-8")
            said = ", ".join(f"{b}: {a:.2f}" for b, a in found["accuracy_by_budget"].items())
            print(
                f"{task.name} {arm} seed {seed}: area {found['area']:.3f}, own {found['own']['used']:.1f} tokens; {said}",
                flush=True,
            )
    print(f"{left} cells left" if left else "nothing left")


if __name__ == "__main__":
    main()
