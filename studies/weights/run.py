"""What weighing examples is worth, alone and crossed with a learnt mixture; see README.md beside this file.

    python -m studies.weights.run [--minutes 9] [--workers 2]

Call it until it says that nothing is left; it then writes result.json and prints the tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from studies.natural import has_base, write_base, write_tasks
from studies.slices import parser, run_slice
from studies.weights.pools import DATA, write_pools

HERE = Path(__file__).parent
ROOT = Path("runs/weights/cells")
POOLS, SEEDS = ("natural", "spoilt"), range(3)
SHARP = {"type": "adapt", "centred": True, "tau": 0.1, "normalise": True}
ARMS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "adapt": {"weights": {"type": "adapt"}},
    "adapt, centred": {"weights": SHARP},
    "bm25": {"weights": {"type": "bm25"}},
    "linupper": {"weights": {"type": "linupper"}},
    "adapt x mixture": {"weights": SHARP, "mixture": {"type": "adapt"}},
}


@dataclass(frozen=True)
class Cell:
    """One run."""

    pool: str
    arm: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return ROOT / self.pool / self.arm.replace(", ", "-").replace(" x ", "-x-") / f"seed-{self.seed}"

    @property
    def result(self) -> Path:
        """The file that marks it finished: the losses in and out of domain."""
        return self.folder.parent / f"{self.folder.name}.json"


def work(cell: Cell) -> str:
    """Train, then measure on the held-out categories."""
    from apportion.plans.recipe import parse_recipe, read_yaml
    from apportion.plans.run import run_recipe

    values = read_yaml(HERE / "recipe.yaml") | ARMS[cell.arm] | {"seed": cell.seed}
    values["tasks"] = {**values["tasks"], "path": str(DATA / cell.pool)}
    summary = run_recipe(parse_recipe(values), cell.folder).summary
    records = [json.loads(line) for line in (cell.folder / "history.jsonl").read_text().splitlines()]
    measured = {
        "pool": cell.pool,
        "arm": cell.arm,
        "seed": cell.seed,
        "in_domain": summary["final"]["macro"],
        "worst": summary["final"]["worst"],
        "out_of_domain": held_out(cell.folder / "model"),
        "supervised": summary["spent"]["train"]["supervised"],
        "flops": sum(account["flops"] for account in summary["spent"].values()),
        "weights": next((r["weights"] for r in reversed(records) if "weights" in r), None),
    }
    cell.result.write_text(json.dumps(measured))
    return f"{cell.pool}, {cell.arm}, seed {cell.seed}: in {measured['in_domain']:.3f}, out {measured['out_of_domain']:.3f}"


def held_out(model: Path) -> float:
    """Return the macro loss on the first 200 training examples of each held-out category, which no pool contains."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from apportion.signals.losses import task_losses
    from apportion.tasks import TasksSpec, load_encoded
    from apportion.tasks.validation import batched

    tokenizer = AutoTokenizer.from_pretrained(model)
    tasks = load_encoded(TasksSpec(source="jsonl", path=str(DATA / "held-out"), max_length=160), tokenizer, 160)
    picked = [(t, task.train, i) for t, task in enumerate(tasks.tasks) for i in range(min(200, len(task.train)))]
    batches = batched(picked, 64, int(tokenizer.pad_token_id))
    return float(task_losses(AutoModelForCausalLM.from_pretrained(model), batches, len(tasks.tasks), "cpu").mean())


def cells() -> list[Cell]:
    """Return every cell, all arms and pools of a seed before the next seed."""
    return [Cell(pool, arm, seed) for seed in SEEDS for pool in POOLS for arm in ARMS]


def tables(results: list[dict[str, Any]]) -> str:
    """Return one Markdown table a pool."""
    lines: list[str] = []
    for pool in POOLS:
        lines += [
            f"**{pool}**",
            "",
            "| arm | in domain (range) | out of domain (range) | worst task | supervised tokens | w: mean, std, ess |",
            "|---|---|---|---|---|---|",
        ]
        for arm in ARMS:
            mine = [r for r in results if (r["pool"], r["arm"]) == (pool, arm)]
            if not mine:
                continue
            spread = {
                key: f"{mean(v):.3f} ({min(v):.3f}-{max(v):.3f})"
                for key in ("in_domain", "out_of_domain")
                for v in [[r[key] for r in mine]]
            }
            w = mine[0]["weights"]
            said = f"{w['mean']:.3f}, {w['std']:.3f}, {100 * w['ess']:.1f} %" if w else ""
            lines.append(
                f"| {arm} | {spread['in_domain']} | {spread['out_of_domain']} | {mean(r['worst'] for r in mine):.2f} "
                f"| {mean(r['supervised'] for r in mine):,.0f} | {said} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run one slice, and write what there is."""
    options = parser(__doc__).parse_args()
    write_tasks()
    if not has_base("llama"):
        write_base("llama")
    write_pools()
    run_slice([cell for cell in cells() if not cell.result.exists()], work, options.minutes, options.workers)
    results = [json.loads(cell.result.read_text()) for cell in cells() if cell.result.exists()]
    (HERE / "result.json").write_text(json.dumps({"cells": results}, indent=1) + "\n")
    print(tables(results))
    left = len(cells()) - len(results)
    print(f"{left} left: run again." if left else "Nothing left.")


if __name__ == "__main__":
    main()
