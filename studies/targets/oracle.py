"""The best mixture of each suite by search: what a learnt one is measured against.

Mixtures drawn at random are run at the study's own budget, a log-linear law is fitted to each target's loss, and its lowest
point is run beside the best that were drawn, on fresh seeds. Then the same over pairs of mixtures, one for the first 30 % of
the budget and one for the rest. LightGBM is no dependency of this project, so that it was left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apportion.tasks.splits import hashed
from studies.targets.arms import OWN
from studies.targets.cells import FRESH_SEEDS, SEARCH_SEEDS, Cell
from studies.targets.fitting import dirichlets, law_of, lowest, pairs
from studies.targets.places import ROOT, data_of, known, sources, targets

ARCH, PART, BEST = "llama", "oracle", 3
KINDS = ("static", "phases")
# Pairs of mixtures are searched where order may matter, by what the suites are: a search is as many runs again.
WITH_PHASES = ("prerequisites", "optimum")


def result_of(suite: str) -> dict[str, Any] | None:
    """Return what the search of a suite has found: by kind ``mixture``, ``target``, ``runs`` and the law's ``error``."""
    file = ROOT / PART / f"{suite}.json"
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else None


def due(suites: Sequence[str]) -> list[Cell]:
    """Return the runs of the search that can be made now; what is settled by finished ones is written down."""
    return [cell for suite in suites for kind in kinds(suite) for cell in _due(suite, kind)]


def kinds(suite: str) -> tuple[str, ...]:
    """Return the kinds of mixture that are searched for."""
    return KINDS if suite in WITH_PHASES else KINDS[:1]


def _due(suite: str, kind: str) -> list[Cell]:
    found = result_of(suite) or {}
    if kind in found or (kind == "phases" and "static" not in found):
        return []
    drawn = trials(suite, kind)
    left = [cell for cell in drawn if not cell.finished]
    if left:
        return left
    x = mixtures(suite, kind)
    losses = np.array([measured(cell, suite) for cell in drawn])
    confirmed = confirmations(suite, kind, x, losses)
    left = [cell for cells in confirmed.values() for cell in cells if not cell.finished]
    if not left:
        _settle(suite, kind, x, losses, confirmed)
    return left


def measured(cell: Cell, suite: str) -> list[float]:
    """Return the losses of a suite's targets on unseen examples in a run, which may have measured others too."""
    losses = json.loads(cell.unseen.read_text("utf-8"))
    return [float(losses[name]) for name in targets(suite)]


def mixtures(suite: str, kind: str) -> np.ndarray:
    """Return the mixtures that are run, three for each source and three more, (3 (T + 1), T or 2 T)."""
    names, seed = sources(suite), hashed(data_of(suite).name) % 2**32
    if kind == "static":
        return dirichlets(3 * (len(names) + 1), len(names), seed)
    best = (result_of(suite) or {})["static"]["mixture"]
    return pairs(3 * (len(names) + 1), np.array([best[name] for name in names]), seed)


def trials(suite: str, kind: str) -> list[Cell]:
    """Return the runs of these mixtures; suites of the same data share them."""
    data = data_of(suite).name
    return [
        Cell(data, ARCH, SEARCH_SEEDS[i % len(SEARCH_SEEDS)], f"{kind}-{i:02d}", blocks(suite, kind, x), PART)
        for i, x in enumerate(mixtures(suite, kind))
    ]


def blocks(suite: str, kind: str, x: np.ndarray) -> dict[str, Any]:
    """Return the recipe block of a mixture, (T,), or of two one after another, (2 T,)."""
    mixture = named(suite, kind, x)
    if kind == "static":
        return {"mixture": {"type": "fixed", "shares": mixture}}
    return {"mixture": {"type": f"{OWN}:TwoPhases", **mixture}}


def named(suite: str, kind: str, x: np.ndarray) -> dict[str, Any]:
    """Return a mixture by the sources' names; of two, ``first`` and ``then``."""
    names = sources(suite)
    if kind == "static":
        return dict(zip(names, (x / x.sum()).tolist(), strict=True))
    half = len(names)
    return {"first": named(suite, "static", x[:half]), "then": named(suite, "static", x[half:])}


def candidates(x: np.ndarray, losses: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Return the mixtures to confirm: the law's lowest point, the best that was run, and the mean of the three best.

    Args:
        x: Mixtures that were run, (n, D).
        losses: Of each and of each target, (n, V).
        kind: ``static`` or ``phases``.
    """
    order = losses.mean(1).argsort(kind="stable")
    laws = [law_of(x, column) for column in losses.T]
    return {
        "law": lowest(laws, x[order[0]], parts=1 + (kind == "phases")),
        "best": x[order[0]],
        "mean": x[order[:BEST]].mean(0),
    }


def confirmations(suite: str, kind: str, x: np.ndarray, losses: np.ndarray) -> dict[str, list[Cell]]:
    """Return the runs on fresh seeds by candidate; what is known by construction is one too."""
    points = candidates(x, losses, kind)
    best: Mapping[str, float] = known(suite)["best"]
    if kind == "static" and best:
        points["known"] = np.array([best.get(name, 0.0) for name in sources(suite)])
    return {
        name: [Cell(suite, ARCH, s, f"{kind}-{name}", blocks(suite, kind, p), PART) for s in FRESH_SEEDS]
        for name, p in points.items()
    }


def _settle(suite: str, kind: str, x: np.ndarray, losses: np.ndarray, confirmed: Mapping[str, list[Cell]]) -> None:
    """Write down the candidate that is lowest on fresh seeds."""
    means = {name: float(np.mean([measured(cell, suite) for cell in cells])) for name, cells in confirmed.items()}
    chosen = min(means, key=lambda name: means[name])
    run = confirmed[chosen][0].blocks
    assert run is not None
    mixture = run["mixture"]
    entry = {
        "mixture": mixture["shares"] if kind == "static" else {key: mixture[key] for key in ("first", "then")},
        "from": chosen,
        "target": means[chosen],
        "confirmed": means,
        "runs": len(x) + sum(map(len, confirmed.values())),
        "law_error": [law_of(x, column).error for column in losses.T],
        "drawn": {"lowest": float(losses.mean(1).min()), "median": float(np.median(losses.mean(1)))},
    }
    file = ROOT / PART / f"{suite}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**(result_of(suite) or {}), kind: entry}, indent=1) + "\n", encoding="utf-8")
