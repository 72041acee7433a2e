"""Quality against total FLOPs for every family of methods, in and out of the target's domain; see README.md here.

    python -m studies.pareto.run [--minutes 9] [--workers 2] [--suites quality,natural] [--arms ARMS] [--seeds 0,1,2]

Call it until it says that nothing is left; each call writes result.json and tables.md from what there is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from studies.pareto.arms import ARMS, with_budget
from studies.pareto.suites import BUDGETS, DATA, SUITES, prepare, values
from studies.slices import parser, recorded, run_slice

HERE = Path(__file__).parent
ROOT = Path("runs/pareto/cells")
SEEDS = (0, 1, 2)
KEYS = ("suite", "budget", "arm", "seed")


@dataclass(frozen=True)
class Cell:
    """One run."""

    suite: str
    budget: float
    arm: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return ROOT / self.suite / f"{self.budget:.0e}" / self.arm / f"seed-{self.seed}"

    @property
    def result(self) -> Path:
        """The file that marks it finished."""
        return self.folder.parent / f"{self.folder.name}.json"


def work(cell: Cell) -> str:
    """Train, then measure in and out of domain; what cannot be done within the budget is written down as that."""
    from apportion import ApportionError
    from apportion.plans.recipe import parse_recipe
    from apportion.plans.run import run_recipe

    chosen = {**values(cell.suite), **ARMS[cell.arm], "seed": cell.seed}
    found: dict[str, Any] = {key: getattr(cell, key) for key in KEYS}
    try:
        recipe = parse_recipe(with_budget(chosen, cell.budget))
        summary = run_recipe(recipe, cell.folder).summary
    except ApportionError as error:
        found["refused"] = str(error)
    else:
        found |= {
            "in_domain": in_domain(recipe, cell.folder / "model"),
            "out_of_domain": out_of_domain(cell.suite, recipe.tasks.max_length, cell.folder / "model"),
            "flops_by_account": {name: of["flops"] for name, of in summary["spent"].items() if of["flops"]},
            "trained_tokens": summary["spent"]["train"]["supervised"],
            "selection": summary.get("selection", {}).get("kept"),
            "seconds": summary["seconds"],
        }
    cell.result.parent.mkdir(parents=True, exist_ok=True)
    cell.result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(cell.folder, ignore_errors=True)
    said = found.get("refused") or f"in {found['in_domain']:.3f}, out {found['out_of_domain']:.3f}"
    return f"{cell.suite}, {cell.budget:.0e}, {cell.arm}, seed {cell.seed}: {said}"


def in_domain(recipe: Any, model: Path) -> float:  # noqa: ANN401
    """Return the mean over targets of the loss on the half of their validation splits that no method sees."""
    from transformers import AutoModelForCausalLM

    from apportion.models.loading import quietly
    from apportion.plans.build import load_data
    from apportion.signals.losses import task_losses
    from apportion.tasks.validation import batched

    data = load_data(recipe)
    picked = [item for items in data.targets.report for item in items[:256]]
    with quietly():
        network = AutoModelForCausalLM.from_pretrained(str(model), use_safetensors=True)
    return float(task_losses(network, batched(picked, 64, data.pad_id), len(data.targets), "cpu").mean())


def out_of_domain(suite: str, max_length: int, model: Path) -> float:
    """Return the mean over sets of the loss on what no source has: for Natural Instructions, the two benchmarks alike."""
    from studies.targets.measure import unseen_losses

    found = unseen_losses(model, DATA / suite, max_length)
    if suite == "quality":
        return mean(found.values())
    return mean([found["gsm8k"], mean(loss for name, loss in found.items() if name != "gsm8k")])


def cells(suites: list[str], arms: list[str], seeds: list[int]) -> list[Cell]:
    """Return the cells, all arms and budgets of a seed before the next seed."""
    return [
        Cell(suite, budget, arm, seed)
        for seed in seeds
        for suite in suites
        for budget in BUDGETS[suite]
        for arm in arms
    ]


def main() -> None:
    """Run one slice, and write what there is."""
    from studies.pareto.summarise import summarise

    options = parser(__doc__)
    options.add_argument("--suites", default=",".join(SUITES), help="suites, commas between")
    options.add_argument("--arms", default=",".join(ARMS), help="arms, commas between")
    options.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds, commas between")
    chosen = options.parse_args()
    wanted = cells(chosen.suites.split(","), chosen.arms.split(","), [int(seed) for seed in chosen.seeds.split(",")])
    prepare()
    run_slice([cell for cell in wanted if not cell.result.exists()], work, chosen.minutes, chosen.workers)
    every = cells(list(SUITES), list(ARMS), list(SEEDS))
    found = [json.loads(cell.result.read_text("utf-8")) for cell in every if cell.result.exists()]
    summarise(recorded(HERE / "result.json", "cells", found, KEYS))
    left = sum(not cell.result.exists() for cell in wanted)
    print(f"{left} left: run again." if left else "Nothing left.")


if __name__ == "__main__":
    main()
