"""Several arms, several seeds, one budget: each a run folder of its own, then one summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion._ranks import rank
from apportion.plans.arms import arm_recipe, sketch_arms
from apportion.plans.recipe import Recipe
from apportion.plans.run import only_benchmarks_left, prepare, run_recipe, settled
from apportion.reports import Picture, write_report
from apportion.reports.notebook import fragment, in_a_table, plot
from apportion.runs import comparison_summary, is_run, read_comparison, read_run, summarise
from apportion.runs.numbers import loss
from apportion.training.recorder import Show


@dataclass(frozen=True, repr=False)
class Comparison:
    """A finished comparison: its folder and its summary. Printed it is a table; a notebook shows its curves too."""

    path: Path
    summary: Mapping[str, Any]

    def report(self) -> Path:
        """Write ``report.html`` into the comparison's folder and return its path."""
        return write_report(self.path)

    def plot(self) -> Picture:
        """Return the arms' curves and the learnt mixture as a picture, which a notebook shows and ``save`` writes.

        Raises:
            ApportionError: The folder is gone.
        """
        return plot(self.path)

    def __repr__(self) -> str:
        metric = self.summary.get("judged_by", "macro")
        means = {name: (arm["final"][metric] or {}).get("mean") for name, arm in self.summary["arms"].items()}
        order = sorted(means, key=lambda name: (means[name] is None, means[name]))
        runs = sum(len(arm["runs"]) for arm in self.summary["arms"].values())
        losses = ", ".join(f"{name} {loss(means[name])}" for name in order)
        return f"Comparison('{self.path}': {runs} runs, final {metric} loss: {losses})"

    def __str__(self) -> str:
        return in_a_table(self.summary)

    def _repr_html_(self) -> str:
        return fragment(self.path)


Announce = Callable[[str, int], Show | None]


def compare_recipe(
    values: Mapping[str, Any],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    announce: Announce = lambda arm, seed: None,
) -> Comparison:
    """Run every arm with every seed under the recipe's budget, and summarise.

    Runs that are finished already are kept, unfinished ones go on, so the same call continues a comparison that was
    stopped.

    Args:
        values: The compare recipe, as plain values; ``arms`` in it maps a name to overrides.
        methods: Arms of the recipe, or mixtures where it has no arm of that name.
        seeds: One run each.
        out: The comparison's folder; runs go to ``<out>/<arm>/seed-<s>/``.
        announce: Called before each run; returns what is told of its records.

    Raises:
        ApportionError: Anything wrong with any arm; all are checked before the first is trained.
    """
    root = Path(out)
    if is_run(root):
        raise ApportionError(f"'{root}' is the folder of a single run: give a new folder for the comparison.")
    if not methods or not seeds:
        raise ApportionError("A comparison needs at least one method and one seed.")
    sketch_arms(values, methods)
    recipes = {
        (arm, seed): arm_recipe(values, arm, seed) for seed in dict.fromkeys(seeds) for arm in dict.fromkeys(methods)
    }
    folders = {(arm, seed): root / arm / f"seed-{seed}" for arm, seed in recipes}
    recipes = {key: settled(recipe, folders[key]) for key, recipe in recipes.items()}
    waiting = [key for key, recipe in recipes.items() if not _is_finished(folders[key], recipe)]
    for key in waiting:
        prepare(recipes[key], folders[key])
    kept = [key for key in recipes if key not in waiting and only_benchmarks_left(recipes[key], folders[key])]
    for arm, seed in (*waiting, *kept):
        run_recipe(recipes[arm, seed], folders[arm, seed], announce(arm, seed))
    summary = summarise(root) if rank() == 0 else comparison_summary(read_comparison(root), root)
    return Comparison(root, summary)


def _is_finished(folder: Path, recipe: Recipe) -> bool:
    if not (folder / "summary.json").exists():
        return False
    if read_run(folder).recipe != recipe.resolved():
        # Creating the folder would say the same, but only after the other arms were trained.
        raise ApportionError(f"'{folder}' holds a finished run of another recipe: give a new folder.")
    return True
