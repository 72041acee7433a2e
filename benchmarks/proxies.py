"""How far small runs can be trusted: how well RegMix ranks mixtures it has not seen, and how far DoReMi's seeds agree.

    python benchmarks/proxies.py [--json]

On the playground's recipe at its defaults. RegMix: the Spearman correlation of predicted and measured loss over 64 trials,
each predicted by a fit that has not seen it. DoReMi: the largest difference between two of three seeds in any task's share
of the mixture, also with a tenth of the paper's eta: a task has one or two examples in a step of 32, and at eta 1 their
noise adds up in the logits. All are what the runs themselves say, made in full, training after the trials included.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from apportion.plans.recipe import overridden, parse_recipe, read_yaml
from apportion.plans.run import Run, run_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "playground.yaml"
TRIALS, SEEDS, CALMER = 64, (0, 1, 2), 0.1


def trained(folder: Path, *assignments: str) -> Run:
    values = {key: value for key, value in read_yaml(RECIPE).items() if key != "arms"}
    return run_recipe(parse_recipe(overridden(values, assignments)), folder)


def regmix_spearman(folder: Path) -> float:
    done = trained(folder / "regmix", f"mixture={{type: regmix, trials: {TRIALS}}}")
    (said,) = [finding for finding in done.summary["findings"] if finding.startswith("RegMix")]
    found = re.search(r"loss (-?\d\.\d+) over", said)
    assert found is not None, said
    return float(found[1])


def doremi_shares(folder: Path, mixture: str) -> list[dict[str, float]]:
    runs = [trained(folder / str(seed), f"mixture={mixture}", f"seed={seed}") for seed in SEEDS]
    return [json.loads((run.path / "mixture.json").read_text())["final"] for run in runs]


def largest_difference(shares: list[dict[str, float]]) -> float:
    return max(max(of[task] for of in shares) - min(of[task] for of in shares) for task in shares[0])


def measured() -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        correlation = regmix_spearman(Path(folder))
        shares = doremi_shares(Path(folder, "doremi"), "doremi")
        calmer = doremi_shares(Path(folder, "calmer"), f"{{type: doremi, eta: {CALMER}}}")
    return {
        "regmix_spearman": round(correlation, 3),
        "doremi_largest_difference": round(largest_difference(shares), 4),
        "doremi_largest_difference_calmer": round(largest_difference(calmer), 4),
        "doremi_largest_share": round(max(max(of.values()) for of in shares), 4),
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measured()
    if options.json:
        print(json.dumps(result))
        return
    print(f"RegMix, {TRIALS} trials: rank correlation {result['regmix_spearman']:.2f} (at least 0.8)")
    print(f"DoReMi, {len(SEEDS)} seeds: shares differ by {result['doremi_largest_difference']:.3f} (at most 0.05),")
    print(f"the largest being {result['doremi_largest_share']:.3f}; at eta {CALMER:g} they differ by")
    print(f"{result['doremi_largest_difference_calmer']:.3f}; {result['seconds']} s in all")


if __name__ == "__main__":
    main()
