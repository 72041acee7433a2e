"""What a report looks at: the arms of one comparison, in order, each with its runs and its colour."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion.runs import RunRecord, common_targets, comparison_summary, is_run, read_comparison, read_run

_COLOURS = {True: ("b0", "b1", "b2", "b3"), False: ("l0", "l1", "l2", "l3", "l4", "l5")}
LINES = ("l0", "l1", "l2", "l3", "l4", "l5", "b1", "b2")
"""Colours of lines that are no arms."""
SCORES = {"exact": "right answers", "agreement": "agreement with the dense answer"}
"""What the metric of a curve is called."""
MARKS = ("circle", "square", "diamond", "up", "down", "cross")


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm: its runs by seed, its numbers, its class of colour and its mark in every chart.

    ``gaps`` holds what `gap_between` found between it and others: a page asks for the same ones many times.
    """

    name: str
    runs: tuple[RunRecord, ...]
    numbers: dict[str, Any]
    colour: str
    mark: str
    gaps: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def finished(self) -> list[RunRecord]:
        """The runs that wrote their summary."""
        return [run for run in self.runs if run.finished]

    @property
    def shown(self) -> RunRecord:
        """The run that stands for the arm where only one can be shown: the first finished one, else the first."""
        return (self.finished or list(self.runs))[0]


@dataclass(frozen=True)
class View:
    """Everything a report shows is worked out from this; ``differs`` says why its runs cannot be compared, if so.

    ``targets`` is the importance of each target by name, empty where the runs have none or not the same ones.
    """

    arms: tuple[Arm, ...]
    best_baseline: str | None
    differs: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """What arms are judged by: ``target`` where there are targets, else ``macro``."""
        return "target" if self.targets else "macro"

    @property
    def loss_name(self) -> str:
        """What the loss that arms are judged by is called."""
        return f"{self.metric} loss"

    def arm(self, name: str | None) -> Arm | None:
        """Return the arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def seeds(self) -> list[int]:
        """The seeds of all arms."""
        return sorted({run.seed for run in self.runs})

    @property
    def baseline(self) -> Arm | None:
        """The best plain arm: what a method has to beat."""
        return self.arm(self.best_baseline)

    @property
    def candidate(self) -> Arm | None:
        """The arm that learns or scores with the lowest mean of the final loss that arms are judged by."""
        ended = [arm for arm in self.arms if arm.numbers["final"][self.metric] and not arm.numbers["baseline"]]
        return min(ended, key=lambda arm: arm.numbers["final"][self.metric]["mean"]) if ended else None

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Tasks by the supervised tokens of their train splits, the largest first; 0 where no run says."""
        found: dict[str, int] = {}
        for run in self.runs:
            for task, drawn in (run.mixture["tasks"] if run.mixture else {}).items():
                found[task] = int(drawn["size"])
            for record in (*run.history[:1], *run.history[-1:]):
                for task in (*record.get("mixture", {}), *record.get("validation", {})):
                    found.setdefault(task, 0)
        return dict(sorted(found.items(), key=lambda item: -item[1]))


Found = tuple[Path, dict[str, list[RunRecord]]]
"""A folder that was given, and the runs in it by arm."""


def read_folders(paths: Sequence[Path]) -> list[Found]:
    """Read run folders and comparison folders.

    A run at ``<arm>/seed-<s>/`` belongs to that arm; any other run to an arm of its own name.

    Raises:
        ApportionError: A path holds no run, or a comparison is given twice.
    """
    folders = [path.resolve() for path in paths if _is_comparison(path)]
    if twice := [path for path in paths if len(folders) > 1 and folders.count(path.resolve()) > 1]:
        raise ApportionError(f"The comparison '{twice[0]}' is given twice: name each folder once.")
    return [(path, _read(path)) for path in paths]


def gathered(found: Sequence[Found]) -> dict[str, list[RunRecord]]:
    """Return the runs of all folders by arm.

    Raises:
        ApportionError: Two runs would be the same seed of the same arm.
    """
    runs: dict[str, list[RunRecord]] = {}
    for _, arms in found:
        for name, of_arm in arms.items():
            runs.setdefault(name, []).extend(of_arm)
    for name, of_arm in runs.items():
        seeds = [run.seed for run in of_arm]
        twice = next((run for run in of_arm if seeds.count(run.seed) > 1), None)
        if twice is not None:
            raise ApportionError(
                f"Two of the runs are seed {twice.seed} of '{name}': put the runs of each arm in '<arm>/seed-<s>/' "
                "folders so that they can be told apart."
            )
    return runs


def load(paths: Sequence[Path]) -> View:
    """Read run folders and comparison folders into one view.

    Raises:
        ApportionError: As `read_folders` and `gathered`, or a run is one of reinforcement, which has no losses to view.
    """
    found = read_folders(paths)
    runs = [run for _, arms in found for of_arm in arms.values() for run in of_arm]
    if other := next((run for run in runs if run.reinforced), None):
        raise ApportionError(f"'{other.path}' is a run of reinforcement: `apportion report` shows it.")
    return _view(found)


def load_apart(found: Sequence[Found]) -> dict[str, View]:
    """Put folders into views, each comparison into one of its own if there are several.

    Runs that are given one by one make one view together, with the comparison if there is one alone. Views go by the
    names of their folders, or by as much of their paths as tells them apart; one view alone goes by "".

    Raises:
        ApportionError: Two runs would be the same seed of the same arm.
    """
    comparisons = [one for one in found if _is_comparison(one[0])]
    if len(comparisons) < 2:
        return {"": _view(found)}
    folders = [path.resolve() for path, _ in comparisons]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath(folders))
        names = [folder.relative_to(common).as_posix() for folder in folders]
    views = {name: _view([one]) for name, one in zip(names, comparisons, strict=True)}
    alone = [one for one in found if not _is_comparison(one[0])]
    return views | ({"runs given one by one": _view(alone)} if alone else {})


def _view(found: Sequence[Found]) -> View:
    runs = gathered(found)
    root = Path(os.path.commonpath([run.path.resolve() for of_arm in runs.values() for run in of_arm]))
    return arrange(runs, root)


def _is_comparison(path: Path) -> bool:
    return path.is_dir() and not is_run(path)


def arrange(runs: dict[str, list[RunRecord]], root: Path) -> View:
    """Put baselines first and give every arm its colour."""
    summary = comparison_summary(runs, root)
    order = sorted(runs, key=lambda name: (not summary["arms"][name]["baseline"], name))
    seen = {True: 0, False: 0}
    arms = []
    for place, name in enumerate(order):
        numbers = summary["arms"][name]
        colours = _COLOURS[numbers["baseline"]]
        colour = colours[seen[numbers["baseline"]] % len(colours)]
        seen[numbers["baseline"]] += 1
        arms.append(Arm(name, tuple(runs[name]), numbers, colour, MARKS[place % len(MARKS)]))
    return View(tuple(arms), summary["best_baseline"], tuple(summary["differs"]), common_targets(runs))


def _read(path: Path) -> dict[str, list[RunRecord]]:
    path = Path(path)
    if not path.is_dir():
        raise ApportionError(f"'{path}' is not a folder: give run folders or a comparison folder.")
    if not is_run(path):
        return read_comparison(path)
    run = read_run(path)
    return {path.resolve().parent.name if path.resolve().name == f"seed-{run.seed}" else run.name: [run]}
