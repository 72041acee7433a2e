"""What steering toward targets costs: FLOPs of all accounts of `adapt` over those of `uniform`, whole runs at the default.

    python benchmarks/targets.py [--json] [--steps 400]

Both train recipes/targets.yaml's model on the quality playground toward two targets that nothing is trained on from, once
with 16 and once with 128 examples a step, and validate before and after. Limits: 1.15 and 1.05 on runs of 400 steps. FLOPs
are the ledger's, so the figures are the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from apportion.plans.build import load_data
from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.plans.run import run_recipe

LIMITS = {16: 1.15, 128: 1.05}
RECIPE = Path(__file__).parents[1] / "recipes/targets.yaml"


def spent(mixture: str, batch: int, steps: int) -> dict[str, float]:
    """Return the FLOPs of each account of one run."""
    values = overridden(
        read_yaml(RECIPE),
        [
            f"mixture={mixture}",
            f"training.per_device_train_batch_size={batch}",
            "targets.train=0",
            "validation.every=1",
        ],
    )
    tasks = load_data(parse_recipe(values)).tasks.tasks
    a_draw = sum(float(task.train.supervised.mean()) for task in tasks) / len(tasks)
    recipe = parse_recipe({**values, "budget": round(a_draw * batch * steps)})
    with tempfile.TemporaryDirectory() as folder:
        accounts = run_recipe(recipe, Path(folder) / "run").summary["spent"]
    return {account: of["flops"] for account, of in accounts.items()}


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="one line of JSON")
    options.add_argument("--steps", type=int, default=400, help="of a run that draws uniformly (default 400)")
    chosen = options.parse_args()
    found: dict[str, Any] = {}
    for batch, limit in LIMITS.items():
        plain, steered = (spent(mixture, batch, chosen.steps) for mixture in ("uniform", "adapt"))
        found[str(batch)] = {
            "total_over_uniform": sum(steered.values()) / sum(plain.values()),
            "meta_over_train": steered["meta"] / steered["train"],
            "limit": limit,
        }
    if chosen.json:
        print(json.dumps({"steps": chosen.steps, "examples_a_step": found}))
        return
    print("examples a step | total FLOPs over uniform's | meta over train | limit")
    for batch, row in found.items():
        print(f"{batch:>15} | {row['total_over_uniform']:26.3f} | {row['meta_over_train']:15.3f} | {row['limit']:5.2f}")


if __name__ == "__main__":
    main()
