"""What is run: one cell is a suite, an architecture, a budget, a seed and an arm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.natural import BASES
from studies.targets.arms import ARMS, BLIND, merged
from studies.targets.hidden import HIDDEN
from studies.targets.places import NATURAL, OF_NATURAL, REPORTED, ROOT, base_recipe, known, targets

# Settings are tuned on the first, mixtures searched for on the second; neither is reported.
TUNING_SEEDS, SEARCH_SEEDS, FRESH_SEEDS = (100, 101, 102), (200, 201, 202, 203), (300, 301)
SEEDS = {"generated": tuple(range(3)), NATURAL: tuple(range(3))}
ARCHITECTURES = {"generated": ("llama",), NATURAL: ("llama", "qwen3", "gemma3")}


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        suite: Of `places`.
        arch: The architecture.
        seed: The run's.
        arm: Of `arms.ARMS`, or the name of a run that sets ``blocks``.
        blocks: Recipe blocks of a run that is no arm, such as one of a search.
        part: The folder that runs of its kind are in.
    """

    suite: str
    arch: str
    seed: int
    arm: str
    blocks: Mapping[str, Any] | None = field(default=None, compare=False)
    part: str = "cells"

    @property
    def family(self) -> str:
        """Return ``natural`` or ``generated``."""
        return NATURAL if self.suite == NATURAL or self.suite in OF_NATURAL else "generated"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that are reported, or tuned on, with it."""
        return SEEDS[self.family] if self.seed in SEEDS[self.family] else TUNING_SEEDS

    @property
    def budget(self) -> str:
        """Supervised tokens."""
        return str(known(self.suite)["budget"])

    @property
    def folder(self) -> Path:
        """Where it runs; targets of the same data share the runs that nothing about them follows in."""
        suite = NATURAL if self.suite in OF_NATURAL and self.arm in BLIND else self.suite
        return ROOT / self.part / f"{suite}-{self.arch}" / self.arm / f"seed-{self.seed}"

    @property
    def unseen(self) -> Path:
        """Where the losses on unseen examples are, by target; written last."""
        return self.folder / "unseen.json"

    @property
    def finished(self) -> bool:
        """Whether all of it is done."""
        return self.unseen.exists()

    @property
    def loss(self) -> float:
        """The mean loss of the suite's targets on unseen examples."""
        losses = json.loads(self.unseen.read_text("utf-8"))
        names = targets(self.suite)
        return float(sum(losses[name] for name in names) / len(names))

    def sibling(self, arm: str, seed: int) -> Cell:
        """Return the cell of another arm and seed."""
        return Cell(self.suite, self.arch, seed, arm, None, self.part)

    def recipe(self) -> dict[str, Any]:
        """Return its recipe as plain values.

        Raises:
            WaitingError: It needs another run first.
        """
        suite = NATURAL if self.suite in OF_NATURAL and self.arm in BLIND else self.suite
        values = base_recipe(suite)
        if self.family == NATURAL:
            values["model"] = {"name": str(BASES / self.arch / "model")}
        blocks = ARMS[self.arm] if self.blocks is None else self.blocks
        return {**merged(values, blocks(self) if callable(blocks) else blocks), "seed": self.seed}


def cells(suites: Sequence[str], arms: Sequence[str], tuning: bool = False) -> list[Cell]:
    """Return the cells of these suites and arms, all arms of a seed before the next seed.

    Args:
        suites: Of `places`.
        arms: Of `arms.ARMS`.
        tuning: On the seeds that settings are tuned on, and not on those that are reported.
    """
    found = []
    for suite in suites:
        family = NATURAL if suite in OF_NATURAL else "generated"
        for arch in ARCHITECTURES[family]:
            for seed in TUNING_SEEDS if tuning else SEEDS[family]:
                for arm in arms:
                    if arm == "best-known" and not known(suite)["best"]:
                        continue
                    found.append(Cell(suite, arch, seed, arm, None, "tuning" if tuning else "cells"))
    return sorted(found, key=lambda cell: cell.seed)


SUITES = (*REPORTED, *OF_NATURAL)
EVERY = (*SUITES, *HIDDEN)
