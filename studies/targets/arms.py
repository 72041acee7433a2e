"""The table of arms: what each sets in the recipe. A new arm is one line.

An arm is a mapping of recipe blocks, which are merged into the suite's recipe, or a function of the cell that returns one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.plans.recipe import read_yaml
from studies.targets.places import data_of, known, sources, targets

if TYPE_CHECKING:
    from studies.targets.cells import Cell

Blocks = Mapping[str, Any]
OWN = "studies.targets.mixtures"
# Shares of the draws on the target's own examples: each seen four times at the most, as the recipes have it, or however
# often the share makes it.
SHARES, OFTEN_SHARES = (0.1, 0.3, 0.5), (0.2, 0.5, 0.8, 1.0)
CAPPED, OFTEN = {"train": 4.0}, {"train": 1000.0}
ANCHORED = {"anchors": 256, "tau": 0.1}


class WaitingError(Exception):
    """The cell needs another run first."""


def fixed(cell: Cell, shares: Mapping[str, float]) -> Blocks:
    """Return a mixture that stands still; sources without a share get 0."""
    total = sum(shares.values())
    return {"mixture": {"type": "fixed", "shares": {n: shares.get(n, 0.0) / total for n in sources(cell.suite)}}}


def best(cell: Cell) -> Blocks:
    """Return the best mixture by construction."""
    return fixed(cell, known(cell.suite)["best"])


def upsample(share: float | str, seen: Blocks) -> Blocks:
    """Return a share of the draws on the target's own examples, which may be seen so often."""
    return {"targets": seen, "mixture": {"type": "upsample", "share": share}}


def anchored(kind: str, **more: object) -> Callable[[Cell], Blocks]:
    """Return weights by likeness to the target's examples, on uniform draws."""

    def blocks(cell: Cell) -> Blocks:
        files = [str(data_of(cell.suite) / "targets" / f"{name}.jsonl") for name in targets(cell.suite)]
        return {"weights": {"type": kind, **ANCHORED, "files": files, **more}}

    return blocks


def found(kind: str) -> Callable[[Cell], Blocks]:
    """Return the best mixture that the search found: ``static``, or the ``phases`` of one that changes once."""

    def blocks(cell: Cell) -> Blocks:
        from studies.targets.oracle import result_of

        result = result_of(cell.suite)
        if result is None or kind not in result:
            raise WaitingError
        if kind == "static":
            return fixed(cell, result["static"]["mixture"])
        return {"mixture": {"type": f"{OWN}:TwoPhases", **result["phases"]["mixture"]}}

    return blocks


def replayed(cell: Cell) -> Blocks:
    """Return the average of what `adapt` drew with the seed before, held still."""
    other = cell.sibling("adapt", cell.seeds[cell.seeds.index(cell.seed) - 1])
    if not other.finished:
        raise WaitingError
    return fixed(cell, drawn(json.loads((other.folder / "mixture.json").read_text("utf-8")), sources(cell.suite)))


def drawn(mixture: Mapping[str, Any], names: list[str]) -> dict[str, float]:
    """Return the share of the examples drawn by source, of all that were drawn from sources; empty where none was."""
    counts = {name: mixture["tasks"][name]["examples"] for name in names}
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def misled(told: str) -> Callable[[Cell], Blocks]:
    """Return `adapt` that is told other gains than were measured."""

    def blocks(cell: Cell) -> Blocks:
        return {**ADAPT, "mixture": {"type": f"{OWN}:Misled", "of": ADAPT["mixture"], "told": told, "seed": cell.seed}}

    return blocks


# The library's default with targets, and what of it the controls change.
ADAPT: dict[str, Any] = {"objective": "mean", "mixture": {"type": "adapt"}}
PROBES: dict[str, Any] = {"objective": "mean", "mixture": {"type": "probes"}}
# The paper's plain method, as the recipes beside the library's own have it.
PAPER: dict[str, Any] = read_yaml(Path(__file__).parents[2] / "recipes/playground.yaml")["arms"]["adapt-paper"]

ARMS: dict[str, Blocks | Callable[[Cell], Blocks]] = {
    "uniform": {"mixture": {"type": "uniform"}},
    "proportional": {"mixture": {"type": "proportional"}},
    **{f"upsample-{share:g}": upsample(share, CAPPED) for share in SHARES},
    **{f"often-{share:g}": upsample(share, OFTEN) for share in OFTEN_SHARES},
    "often-grid": upsample("grid", OFTEN),
    "best-known": best,
    "bm25": anchored("bm25"),
    "embeddings": anchored("adapt", centred=True),
    "loss": {"mixture": {"type": "loss"}},
    "progress": {"mixture": {"type": "progress"}},
    "adapt-paper": PAPER,
    "adapt": ADAPT,
    "adapt-own": {**ADAPT, "targets": CAPPED},
    "adapt-often": {"objective": "mean", "mixture": {"type": "adapt", "share": 0.8}, "targets": OFTEN},
    "probes": PROBES,
    "probes-own": {**PROBES, "targets": CAPPED},
    # What was tried first: every source in every round, and five steps on each.
    "probes-all": {**PROBES, "mixture": {"type": "probes", "steps": 5, "keep": None, "examples": 128}},
    "oracle": found("static"),
    "oracle-phases": found("phases"),
    # Controls of `adapt`.
    "turned": misled("turned"),
    "permuted": misled("permuted"),
    "random": misled("random"),
    "no-gradient": {**ADAPT, "mixture": {**ADAPT["mixture"], "learning_rate": 0.0}},
    "replay": replayed,
}
# Nothing of the run follows the target, so that one run serves every target of the same data.
BLIND = ("uniform", "proportional", "loss", "progress")
STATIC = ("uniform", "proportional", *(f"upsample-{share:g}" for share in SHARES))
# What may be seen however often is held to arms that may see it so too.
STATIC_OFTEN = (*STATIC, *(f"often-{share:g}" for share in OFTEN_SHARES))


def rivals(arm: str) -> tuple[str, ...]:
    """Return the static arms that an arm is held to."""
    return STATIC_OFTEN if "often" in arm else STATIC


def merged(recipe: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    """Return the recipe with the blocks' keys; ``targets``, ``training`` and ``validation`` keep their other keys."""
    kept = ("targets", "training", "validation")
    return {**recipe, **{key: {**recipe[key], **value} if key in kept else value for key, value in blocks.items()}}
