"""Several arms, several seeds, one budget: each a run folder of its own, then one summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError, nearest
from apportion.mixtures import MIXTURES
from apportion.plans.recipe import Recipe, parse_recipe
from apportion.plans.run import prepare, run_recipe, settled
from apportion.runs import comparison_summary, is_run, read_comparison, read_run, summarise
from apportion.signals.ranks import rank
from apportion.training.recorder import Show


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its folder and its summary."""

    path: Path
    summary: Mapping[str, Any]

    def report(self) -> Path:
        """Write ``report.html`` into the comparison's folder and return its path."""
        from apportion.reports import write_report

        return write_report(self.path)


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
    recipes = {
        (arm, seed): arm_recipe(values, arm, seed) for seed in dict.fromkeys(seeds) for arm in dict.fromkeys(methods)
    }
    folders = {(arm, seed): root / arm / f"seed-{seed}" for arm, seed in recipes}
    recipes = {key: settled(recipe, folders[key]) for key, recipe in recipes.items()}
    waiting = [key for key, recipe in recipes.items() if not _is_finished(folders[key], recipe)]
    for key in waiting:
        prepare(recipes[key], folders[key])
    for arm, seed in waiting:
        run_recipe(recipes[arm, seed], folders[arm, seed], announce(arm, seed))
    summary = summarise(root) if rank() == 0 else comparison_summary(read_comparison(root), root)
    return Comparison(root, summary)


def arm_values(values: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Return the recipe of one arm as plain values.

    Raises:
        ApportionError: ``arm`` is neither an arm of the recipe nor a mixture.
    """
    arms = values.get("arms") or {}
    if not isinstance(arms, Mapping):
        raise ApportionError("'arms' must map each arm's name to its overrides.")
    base = {key: value for key, value in values.items() if key != "arms"}
    if arm in arms:
        return _merged(base, arms[arm] or {}, f"arms.{arm}")
    if arm not in MIXTURES:
        raise ApportionError(f"Unknown method '{arm}'{nearest(arm, [*arms, *MIXTURES])}.")
    block = base.get("mixture")
    if isinstance(block, Mapping) and block.get("type") == arm:
        return base  # the recipe's own settings for this method
    return {**base, "mixture": {"type": arm}}


def arm_recipe(values: Mapping[str, Any], arm: str, seed: int) -> Recipe:
    """Return the recipe of one arm with one seed.

    Raises:
        ApportionError: Anything wrong with it, or a name that cannot be a folder's.
    """
    if not arm or "/" in arm or arm.startswith("."):
        raise ApportionError(f"'{arm}' cannot be an arm's name: it becomes a folder's.")
    return parse_recipe({**arm_values(values, arm), "seed": seed})


def _merged(base: Mapping[str, Any], overrides: object, where: str) -> dict[str, Any]:
    if not isinstance(overrides, Mapping):
        raise ApportionError(f"'{where}' must be a mapping of overrides.")
    result = dict(base)
    for key, value in overrides.items():
        old = result.get(key)
        other_method = (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and value.get("type")
            not in (
                None,
                old.get("type"),
            )
        )
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not other_method:
            result[key] = _merged(old, value, f"{where}.{key}")
        else:
            result[key] = value
    return result


def _is_finished(folder: Path, recipe: Recipe) -> bool:
    if not (folder / "summary.json").exists():
        return False
    if read_run(folder).recipe != recipe.resolved():
        # Creating the folder would say the same, but only after the other arms were trained.
        raise ApportionError(f"'{folder}' holds a finished run of another recipe: give a new folder.")
    return True
