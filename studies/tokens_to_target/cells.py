"""What is run: one cell is a suite, an architecture, a budget, an arm and a seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion.plans.recipe import read_yaml
from studies.natural import BASES, TASKS
from studies.tokens_to_target.suites import SUITES

HERE = Path(__file__).parent
DATA = Path("runs/tokens_to_target/data")
CELLS = Path("runs/tokens_to_target")
OWN = "studies.tokens_to_target.objectives"
# Blocks of the recipe that an arm may set beside its mixture.
BLOCKS = ("objective", "targets")

ARMS: dict[str, dict[str, Any]] = {
    "uniform": {"type": "uniform"},
    "proportional": {"type": "proportional"},
    "temperature": {"type": "temperature", "t": 2.0},
    "loss": {"type": "loss"},
    "progress": {"type": "progress"},
    "adapt": {"type": "adapt"},
}
STATIC = ("uniform", "proportional", "temperature")
SEEDS = {"generated": range(5), "natural": range(3)}
# Learning rates are chosen, and settings compared, on seeds that are not reported.
TUNING_SEED, ABLATION_SEEDS = 100, (100, 101)
RATES = {"generated": (2.5e-4, 5.0e-4, 1.0e-3), "natural": (1.0e-3, 2.0e-3, 4.0e-3)}
TUNED = {"generated": ("playground", "llama", "120k"), "natural": ("natural", "llama", "5%")}
NATURAL = (("llama", "1%"), ("llama", "5%"), ("llama", "10%"), ("qwen3", "5%"), ("gemma3", "5%"))


class NotTunedError(Exception):
    """The cell needs the tuning first."""


@dataclass(frozen=True)
class Cell:
    """One run; ``settings`` are the arm's mixture, ``rate`` a learning rate of the grid or None for the best."""

    suite: str
    arch: str
    budget: str
    arm: str
    seed: int
    settings: tuple[tuple[str, Any], ...]
    rate: float | None = None

    @property
    def family(self) -> str:
        """Return ``natural`` or ``generated``."""
        return "natural" if self.suite == "natural" else "generated"

    @property
    def folder(self) -> Path:
        """Where it runs."""
        part = "tuning" if self.rate else "ablation" if self.seed in ABLATION_SEEDS else "cells"
        kind = f"rate-{self.rate:g}" if self.rate else self.arm
        place = f"{self.suite}-{self.arch}-{self.budget.rstrip('%')}"
        return CELLS / part / place / kind / f"seed-{self.seed}"

    @property
    def finished(self) -> bool:
        """Whether its summary is written."""
        return (self.folder / "summary.json").exists()

    def recipe(self) -> dict[str, Any]:
        """Return its recipe as plain values.

        Raises:
            NotTunedError: The learning rate is not chosen yet.
        """
        values = read_yaml(HERE / f"{self.family}.yaml")
        if self.family == "natural":
            values["model"] = {"name": str(BASES / self.arch / "model")}
            values["tasks"] = {**values["tasks"], "path": str(TASKS)}
        else:
            values["tasks"] = {**values["tasks"], "path": str(DATA / self.suite)}
        rate = self.rate or best_rate(self.family)
        training = {**values["training"], "learning_rate": rate}
        settings = dict(self.settings)
        blocks = {block: settings.pop(block) for block in BLOCKS if block in settings}
        return {
            **values,
            **blocks,
            "budget": self.budget,
            "mixture": settings,
            "training": training,
            "seed": self.seed,
        }


def cell(suite: str, arch: str, budget: str, arm: str, seed: int, rate: float | None = None) -> Cell:
    """Return the cell of one of the study's arms."""
    return Cell(suite, arch, budget, arm, seed, tuple(ARMS[arm].items()), rate)


def tuning() -> list[Cell]:
    """Uniform at each learning rate, once for the generated suites and once for Natural Instructions."""
    return [cell(*place, "uniform", TUNING_SEED, rate) for family, place in TUNED.items() for rate in RATES[family]]


def best_rate(family: str) -> float:
    """Return the learning rate at which uniform ends lowest, or where the grid is not run here, the recorded one.

    Raises:
        NotTunedError: Not all of the grid is run, and none is recorded.
    """
    if not all(trial.finished for trial in tuning() if trial.family == family):
        file = HERE / "result.json"
        recorded = json.loads(file.read_text("utf-8"))["summary"]["learning_rates"] if file.exists() else {}
        if family not in recorded:
            raise NotTunedError
        return float(recorded[family])
    found: dict[float, float] = {}
    for trial in tuning():
        if trial.family == family:
            assert trial.rate is not None
            summary = json.loads((trial.folder / "summary.json").read_text())
            found[trial.rate] = float(summary["final"]["macro"])
    return min(found, key=lambda rate: found[rate])


def generated() -> list[Cell]:
    """Every suite, seed and arm; all arms of a seed before the next seed."""
    return [cell(suite, "llama", "120k", arm, seed) for seed in SEEDS["generated"] for suite in SUITES for arm in ARMS]


def natural() -> list[Cell]:
    """Every architecture and budget, seed and arm."""
    return [
        cell("natural", arch, budget, arm, seed)
        for seed in SEEDS["natural"]
        for arch, budget in NATURAL
        for arm in ARMS
    ]


# What each part of ADAPT mixtures does: its settings one at a time, on seeds that are not reported.
MORE = {"examples_per_task": 8, "refresh": 50}
VARIANTS: dict[str, dict[str, Any]] = {
    "uniform": {"type": "uniform"},
    "progress": {"type": "progress"},
    "adapt": {"type": "adapt"},
    "more measured": {"type": "adapt", **MORE},
    "more measured, no gradient": {"type": "adapt", **MORE, "learning_rate": 0.0},
    "more measured, no prior": {"type": "adapt", **MORE, "prior": 0.0},
    "no gradient": {"type": "adapt", "learning_rate": 0.0},
    "no prior": {"type": "adapt", "prior": 0.0},
}


# The open choices, one at a time, on two suites and one seed.
SWEEP: dict[str, dict[str, Any]] = {
    "tau 0.1": {"type": "adapt", "objective": {"type": "reducible", "tau": 0.1}},
    "tau 0.3": {"type": "adapt", "objective": {"type": "reducible", "tau": 0.3}},
    "tau 100, the mean": {"type": "adapt", "objective": {"type": "reducible", "tau": 100.0}},
    "entropy 0": {"type": "adapt", "entropy": 0.0},
    "entropy 1e-4": {"type": "adapt", "entropy": 1e-4},
    "entropy 1e-2": {"type": "adapt", "entropy": 1e-2},
    "floor 0": {"type": "adapt", "floor": 0.0},
    "floor 0.3": {"type": "adapt", "floor": 0.3},
    "momentum 0": {"type": "adapt", "momentum": 0.0},
    "momentum 0.9": {"type": "adapt", "momentum": 0.9},
    "refresh 20": {"type": "adapt", "refresh": 20},
    "examples 16": {"type": "adapt", "examples_per_task": 16},
    "step 0.1": {"type": "adapt", "learning_rate": 0.1},
    "memory 1, accumulating": {"type": "adapt", "memory": 1.0},
    "no preconditioner": {"type": "adapt", "precondition": False},
    "forward": {"type": "adapt", "estimator": "forward", "refresh": 20},
    "J of losses as they are, prior kept": {"type": "adapt", "objective": "worst"},
    "CVaR, the worst quarter": {"type": "adapt", "objective": {"type": f"{OWN}:Cvar", "share": 0.25}},
}


def sweep() -> list[Cell]:
    """Every setting of the sweep on two suites."""
    seed = ABLATION_SEEDS[0]
    return [
        Cell(suite, "llama", "120k", name, seed, tuple(settings.items()))
        for name, settings in SWEEP.items()
        for suite in ("playground", "noisy")
    ]


# Some tasks matter more to the user: a quarter of them, four times as much.
IMPORTANCE, GROUPED = 4.0, ("playground", "related")


def important(suite: str) -> list[str]:
    """Return every fourth task of a suite, by name."""
    return sorted(SUITES[suite]())[::4]


def groups() -> list[Cell]:
    """Draws by importance, and ADAPT mixtures with it, with and without the gradient; uniform is in the ablation."""
    cells = []
    for suite in GROUPED:
        names, chosen = sorted(SUITES[suite]()), important(suite)
        total = len(names) + (IMPORTANCE - 1) * len(chosen)
        shares = {name: (IMPORTANCE if name in chosen else 1.0) / total for name in names}
        targets = {"tasks": {name: IMPORTANCE if name in chosen else 1.0 for name in names}}
        ways = {
            "by importance": {"type": "fixed", "shares": shares},
            "importance in the objective": {"type": "adapt", "targets": targets},
            "importance times what a task can still lose": {
                "type": "adapt",
                "learning_rate": 0.0,
                "targets": targets,
            },
        }
        cells += [
            Cell(suite, "llama", "120k", name, seed, tuple(settings.items()))
            for seed in ABLATION_SEEDS
            for name, settings in ways.items()
        ]
    return cells


def ablation() -> list[Cell]:
    """Every variant on three suites, all variants of a seed before the next seed."""
    return [
        Cell(suite, "llama", "120k", name, seed, tuple(settings.items()))
        for seed in ABLATION_SEEDS
        for name, settings in VARIANTS.items()
        for suite in ("playground", "noisy", "related")
    ]
