"""What every mixture is: a frozen config with three pure calls, and what it is told while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from apportion._config import Config
from apportion._config import plain as plain_values
from apportion.signals._records import Feedback
from apportion.signals._signal import TaskSignal
from apportion.signals.validation_losses import ValidationLosses

State = dict[str, Tensor]


@dataclass(frozen=True)
class Trial:
    """A run that a mixture asks for before the one it is for, charged to `proxy`.

    Attributes:
        overrides: Blocks of the run's recipe that are others in the trial, by their keys.
        budget: Share of the run's budget that it may spend.
    """

    overrides: Mapping[str, Any]
    budget: float


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        loss: Its last loss: of the targets, or macro where none are named.
        weights: The mean weight that each task's examples were given, by name; empty where none were weighed.
    """

    loss: float
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskSizes:
    """What a mixture knows of the tasks before training.

    Shapes: all are (T,) float64, in the collection's order. ``examples`` and ``supervised`` tokens of each task's train
    split; ``importance`` of each as a target, 0 for a task that is none, and 1 for all where no targets are named.
    """

    names: tuple[str, ...]
    examples: Tensor
    supervised: Tensor
    importance: Tensor


class Mixture(Config):
    """A distribution over tasks, fixed or learnt; state is explicit and plain.

    ``unit`` says what the distribution shares out: draws of examples, or supervised tokens. ``draws`` is how counts are
    rounded in a step: ``systematic`` (low variance) or ``multinomial``. ``max_epochs`` caps how often any one task may be
    seen; None lets small tasks repeat.

    Attributes:
        plain: True if nothing is measured for it, so that it is a baseline; a run's summary says so to reports.
        advice: What to change where a report sees that the mixture ``narrowed`` early, stood ``still``, ``swings`` or left
            tasks ``behind``; it names keys of this method only. One that is to stand still leaves that one out.
    """

    plain: ClassVar[bool] = True
    advice: ClassVar[Mapping[str, str]] = {}

    unit: Literal["examples", "tokens"] = "examples"
    draws: Literal["systematic", "multinomial"] = "systematic"
    max_epochs: float | None = Field(None, gt=0)

    def findings(self) -> tuple[str, ...]:
        """Return sentences on how the settings were read, for the run's summary and report."""
        return ()

    def settled(self, targets: bool) -> Self:
        """Return the mixture with the defaults of what was left out, which may be others where a recipe names targets."""
        return self

    def ask(self, tasks: TaskSizes, folder: Path) -> Mapping[str, Trial]:
        """Return the runs whose outcome the mixture is told before it is trained with, by name; none for most.

        Args:
            tasks: The tasks.
            folder: Where the trials' run folders will lie, each under its name. They are run in their order, so that a
                later one may read what an earlier one left.
        """
        return {}

    def tell(self, tasks: TaskSizes, outcomes: Mapping[str, Outcome]) -> Mixture:
        """Return the mixture to train with, from how the trials ended, by their names."""
        return self

    def needs(self) -> tuple[TaskSignal, ...]:
        """Return the signals that the mixture is told, made anew; none for one that needs nothing."""
        return ()

    def init(self, tasks: TaskSizes) -> State:
        """Return the state before training; everything the other two calls need is in it."""
        raise NotImplementedError

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,) float64, nonnegative, summing to one."""
        return state["p"]

    def update(self, state: State, feedback: Feedback) -> State:
        """Return the state after feedback; a fixed mixture returns it unchanged. Never mutates ``state``."""
        return state

    def rates(self, state: State) -> Tensor:
        """Return r, (T,), the rates that examples are drawn at, which a step's loss is the mean of.

        They are p, or where p shares out tokens p over ``state["lengths"]``, the tasks' mean supervised tokens (T,).
        """
        p = self.proportions(state)
        if self.unit == "examples":
            return p
        rates = p / state["lengths"]
        return rates / rates.sum()

    def drawing(self) -> dict[str, Any]:
        """Return the settings that every mixture has, for another that is to draw alike."""
        return {key: value for key, value in plain_values(self).items() if key in Mixture.model_fields}


class LossGuided(Mixture):
    """A mixture that follows the tasks' validation losses.

    Attributes:
        refresh: Optimizer steps between measurements, at the least.
        max_cost: Most that measuring may cost, as a share of the FLOPs that training has cost so far: one that is due
            waits until training has paid for it.
        examples_per_task: Validation examples a task in each, of the half of the split that methods may see.
    """

    plain: ClassVar[bool] = False

    refresh: int = Field(20, ge=1)
    max_cost: float = Field(0.1, gt=0)
    examples_per_task: int = Field(8, ge=1)

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for the validation losses."""
        return (
            ValidationLosses(refresh=self.refresh, max_cost=self.max_cost, examples_per_task=self.examples_per_task),
        )


def uniform(n: int) -> Tensor:
    """Return the uniform distribution over ``n`` tasks, (n,) float64."""
    return torch.full((n,), 1.0 / n, dtype=torch.float64)


def on_targets(share: float, importance: Tensor, p: Tensor) -> Tensor:
    """Return p, (T,), with ``share`` of it on the targets by importance, and what p says of the others in the rest.

    p itself where there is no share, or none or all of the tasks are targets.

    Args:
        share: s, in [0, 1].
        importance: w, (T,), 0 for a task that is no target.
        p: A distribution, (T,).
    """
    targets = importance > 0
    if not share or not targets.any() or targets.all():
        return p
    others = torch.where(targets, 0.0, p)
    return share * importance / importance.sum() + (1 - share) * others / others.sum()
