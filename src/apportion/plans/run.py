"""One recipe, one run: its stages, one after the other, within its budget, and a run folder left behind."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from apportion._errors import ApportionError
from apportion._ranks import leave_at_exit, one_first, rank, wait, world
from apportion.budget import Account, Budget, Ledger
from apportion.budget.prices import Cost
from apportion.models import Child
from apportion.models.sizes import check_memory
from apportion.plans.build import Data, load_data, make_model
from apportion.plans.evaluate import evaluate_run, evaluating_of
from apportion.plans.recipe import Recipe, parse_recipe
from apportion.plans.selecting import FILE, WORK, Selecting
from apportion.plans.spending import with_cadence
from apportion.plans.stages import Costs, Stage, expect, together
from apportion.plans.training import Training
from apportion.plans.warming import looks_of
from apportion.reports import Picture, write_report
from apportion.reports.notebook import fragment, plot
from apportion.runs import RunFolder, in_a_line, read_run
from apportion.signals._pool import Look
from apportion.training.recorder import Show

# Folder of the run that a selection asks for, beside its file.
WARM_UP = "warm-up"


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its folder and its summary. A notebook shows it with its numbers and curves."""

    path: Path
    summary: Mapping[str, Any]

    def report(self) -> Path:
        """Write ``report.html`` into the run folder and return its path."""
        return write_report(self.path)

    def plot(self) -> Picture:
        """Return the run's curves and its mixture as a picture, which a notebook shows and ``save`` writes.

        Raises:
            ApportionError: The folder is gone.
        """
        return plot(self.path)

    def __repr__(self) -> str:
        said = in_a_line(self.summary["method"], self.summary["seed"], self.summary["final"], self.summary["spent"])
        return f"Run('{self.path}': {said})"

    def _repr_html_(self) -> str:
        return fragment(self.path)


class Staged:
    """A run as its stages, in their order: the selection, the runs before, the training, and the benchmarks.

    Attributes:
        stages: All of them.
        training: It.
        ledger: The run's.

    Raises:
        ApportionError: A model, budget, method or training argument that does not fit.
    """

    def __init__(self, recipe: Recipe, data: Data, out: Path) -> None:
        self._data = data
        self.training = Training(recipe, data, out)
        self.ledger = self.training.setup.ledger
        self._first: tuple[Stage, ...] = ()
        self._selecting: Selecting | None = None
        if not recipe.chosen().keeps_all:
            *before, self._selecting = selection_stages(recipe, data, out / FILE, out, lambda: self.training.model)
            self._first = (*before, self._selecting)
            self._train_on_kept()
        else:
            self.stages = (*self._children(), self.training, *self._after())

    def _train_on_kept(self) -> None:
        """Let training have what is selected, or before that is known as much by chance."""
        selecting, training = self._selecting, self.training
        assert selecting is not None
        rows = selecting.kept() if selecting.finished else selecting.expected()
        drawn = {"type": "random", "limit": {"examples": sum(map(len, rows))}}
        training.take(self._data.kept(rows), selecting.block if selecting.finished else drawn, self.ledger)
        training.selected = selecting.summary() if selecting.finished else None
        self.stages = (*self._first, *self._children(), training, *self._after())

    def _after(self) -> tuple[Stage, ...]:
        return () if self.training.evaluating is None else (self.training.evaluating,)

    def _children(self) -> list[ChildRun]:
        # In FLOPs all accounts are paid from one budget, and a child is held to what it was priced at.
        bounded = self.ledger.budget.unit == "flops"
        children = (*self.training.children, *self.training.trials.values())
        return [ChildRun(child, bounded=bounded) for child in children]

    def check(self) -> None:
        """Check every stage, each with what those before it are expected to spend.

        Raises:
            ApportionError: Anything wrong with one.
        """
        expected = Ledger(self.ledger.budget)
        for stage in self.stages:
            stage.check(expected)
            if stage is not self.training:
                expect(expected, stage.price(expected))

    def prices(self) -> list[Costs]:
        """Return what each stage is expected to spend, by account."""
        expected, found = Ledger(self.ledger.budget), []
        for stage in self.stages:
            found.append(stage.price(expected))
            expect(expected, found[-1])
        return found

    def price(self) -> dict[Account, Cost]:
        """Return what the whole run is expected to spend, by account."""
        return together(self.prices())

    def load(self) -> None:
        """Load what every stage needs; errors are `Stage.load`'s."""
        for stage in self.stages:
            stage.load()

    def run(self, folder: RunFolder | None, show: Show | None) -> None:
        """Run every stage; arguments and errors are `Stage.run`'s."""
        started = time.monotonic()
        for stage in self._first:
            stage.run(self.ledger, folder, show)
        self.training.waited = time.monotonic() - started
        if self._selecting is not None:
            self._train_on_kept()  # from here on it is known
        for stage in self.stages[len(self._first) :]:
            stage.run(self.ledger, folder, show)


def selection_stages(
    recipe: Recipe, data: Data, file: Path, home: Path, model: Callable[[], nn.Module | None]
) -> tuple[*tuple[ChildRun, ...], Selecting]:
    """Return the stages of a selection: the warm-up that it may ask for, and the scoring.

    Args:
        recipe: Whose selection it is.
        data: The pool.
        file: The file to write.
        home: A folder for a warm-up, and for what is scored already.
        model: Returns the model as training starts with it, once that is loaded.

    Raises:
        ApportionError: A warm-up that cannot be.
    """
    work = home / WORK
    values = recipe.chosen().warm_up(recipe.model_copy(update={"evaluate": None}).resolved())
    if values is None:
        shapes = make_model(recipe, data, meta=True)

        def start(count: int) -> Iterator[Look]:
            loaded = model()
            assert loaded is not None, "a stage is loaded before it is run"
            yield Look(loaded.to(recipe.arguments(work).device))

        return (Selecting(recipe, data, file, work, shapes, recipe.model_kind().prices(shapes), start),)
    child = Child(home / WARM_UP, values, data.tasks.names)
    looks = sum(signal.looks for signal in recipe.chosen().needs())
    warm = WarmUp(child, bounded=Budget.parse(recipe.budget, data.pool).unit == "flops", looks=looks)
    shapes = make_model(warm.recipe, data, meta=True)

    def restored(count: int) -> Iterator[Look]:
        return looks_of(warm.recipe, data, child.folder, count)

    def before() -> dict[str, Any]:
        return {"proxy": warm.spent()}

    return warm, Selecting(recipe, data, file, work, shapes, recipe.model_kind().prices(shapes), restored, before)


def prepare(recipe: Recipe, out: str | Path) -> Staged:
    """Check recipe, folder, data and budget in full, so that a mistake leaves nothing behind; loads no weights.

    Args:
        recipe: What to run.
        out: The run folder.

    Raises:
        ApportionError: Anything wrong with them.
    """
    for block in (recipe.tasks, recipe.targets):
        if block is not None:
            block.keep_out(Path(out))
    recipe = settled(recipe, out)
    if rank() == 0:
        RunFolder.check(out, recipe.resolved())
    staged = Staged(recipe, load(recipe, out), Path(out))
    check_memory(staged.training.shapes)
    staged.check()
    return staged


class ChildRun(Stage):
    """A run that has to be there before training: an ordinary one in a folder of its own, charged to `proxy`.

    Args:
        child: The run.
        bounded: Whether it may spend no more FLOPs than it is priced at, whatever its own budget.
    """

    def __init__(self, child: Child, *, bounded: bool) -> None:
        self.name = child.folder.name
        self._child, self._bounded = child, bounded

    @property
    def recipe(self) -> Recipe:
        """The child's recipe, settled; bounded, its budget is what it is priced at."""
        return self._priced[0]

    @property
    def steps(self) -> int:
        """How many optimizer steps it is expected to have."""
        return self._priced[2]

    @cached_property
    def _priced(self) -> tuple[Recipe, Cost, int]:
        recipe = settled(parse_recipe(self._child.values or {}), self._child.folder)
        staged = Staged(recipe, load(recipe, self._child.folder), self._child.folder)
        cost = sum(staged.price().values(), Cost())
        steps = staged.training.expected.steps if staged.training.expected else 0
        if not self._bounded or staged.ledger.budget.unit == "flops":
            return recipe, cost, steps
        # Rounded down: what is written into the recipe must be the same when a run is resumed.
        digits = 10.0 ** (math.floor(math.log10(cost.flops)) - 3)
        budget = {"total": f"{math.floor(cost.flops / digits) * digits:.4g} FLOPs"}
        return recipe.model_copy(update={"budget": budget}), cost, steps

    @property
    def finished(self) -> bool:
        """Whether the folder holds the finished run of this recipe, or one that the user named."""
        if not (self._child.folder / "summary.json").exists():
            return False
        return self._child.values is None or read_run(self._child.folder).recipe == self.recipe.resolved()

    def check(self, ledger: Ledger) -> None:
        """Check what the child, as a run of its own, would."""
        if self.finished:
            return
        try:
            prepare(self.recipe, self._child.folder)
        except ApportionError as error:
            raise ApportionError(f"The run '{self.name}', which comes before training, cannot be: {error}") from None

    def price(self, ledger: Ledger) -> Costs:
        """Return what the child is expected to spend as the run that it is, or what it spent if it is finished."""
        if not self.finished:
            return {"proxy": self._priced[1]}
        spent = self.spent()
        return {"proxy": Cost(spent["supervised"], spent["processed"], spent["flops"])}

    def spent(self) -> dict[str, Any]:
        """Return what the finished child spent, over all of its accounts."""
        accounts = json.loads((self._child.folder / "ledger.json").read_text("utf-8"))["accounts"].values()
        columns = ("supervised", "processed", "padded", "flops")
        return {column: sum(account[column] for account in accounts) for column in columns}

    def run(self, ledger: Ledger, folder: RunFolder | None, show: Show | None) -> None:
        """Run the child if it is not finished, and charge all that it spent."""
        if not self.finished:
            run_recipe(self.recipe, self._child.folder)
        ledger.charge("proxy", **self.spent())


class WarmUp(ChildRun):
    """The run whose checkpoints a selection looks at the pool with.

    Args:
        child: The run.
        bounded: As of any child.
        looks: How many checkpoints it has to leave.
    """

    def __init__(self, child: Child, *, bounded: bool, looks: int) -> None:
        super().__init__(child, bounded=bounded)
        self._looks = looks

    def check(self, ledger: Ledger) -> None:
        """Refuse one that is too short for its checkpoints too."""
        super().check(ledger)
        if not self.finished and self.steps < self._looks:
            raise ApportionError(
                f"The warm-up is expected to have {self.steps} optimizer steps, and has to leave {self._looks} checkpoints: "
                "raise 'selection.warmup', or lower 'selection.epochs'."
            )


def settled(recipe: Recipe, out: str | Path) -> Recipe:
    """Return the recipe as it will be run: what is left to follow from the data is written out.

    Raises:
        ApportionError: Anything wrong with the data, where something does.
    """
    return recipe if recipe.validation.every is not None else with_cadence(recipe, load(recipe, out))


def load(recipe: Recipe, out: str | Path) -> Data:
    """Return the recipe's data, which the first of several processes reads before the others.

    Raises:
        ApportionError: Anything wrong with the data.
    """
    if world() > 1:
        recipe.arguments(Path(out))  # where the processes find each other
        leave_at_exit()
    with one_first():
        return load_data(recipe)


def run_recipe(recipe: Recipe, out: str | Path, show: Show | None = None) -> Run:
    """Run one recipe's stages; goes on where it was stopped if the folder holds an unfinished run of it.

    Where several processes were started together, all call this, and rank 0 alone writes and shows. The folder must be one
    that all of them see.

    Args:
        recipe: What to run.
        out: The run folder.
        show: Told of every record.

    Raises:
        ApportionError: Anything wrong with recipe, data, model or folder; before training starts nothing is written.
    """
    recipe = settled(recipe, out)
    if only_benchmarks_left(recipe, out):
        return _with_benchmarks(Path(out))
    staged = prepare(recipe, out)
    staged.load()  # before the folder is made, for the same reason
    folder = RunFolder.create(out, recipe.resolved()) if rank() == 0 else None
    with folder or nullcontext():
        staged.run(folder, show)
    wait()
    return Run(Path(out), staged.training.summary)


def only_benchmarks_left(recipe: Recipe, out: str | Path) -> bool:
    """Return whether the folder holds the finished run of a settled recipe, but not all of its benchmarks.

    Raises:
        ApportionError: Benchmarks that cannot be read.
    """
    out = Path(out)
    if recipe.evaluate is None or not (out / "summary.json").is_file():
        return False
    return read_run(out).recipe == recipe.resolved() and not evaluating_of(out).finished


def _with_benchmarks(out: Path) -> Run:
    if rank() == 0:
        evaluate_run(out)
    wait()
    return Run(out, json.loads((out / "summary.json").read_text("utf-8")))
