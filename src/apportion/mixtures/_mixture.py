"""What every mixture is: a frozen config with three pure calls, and what it is told while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from apportion._config import Config
from apportion.signals.objective import Objective

State = dict[str, Tensor]


@dataclass(frozen=True)
class TaskSizes:
    """What a mixture knows of the tasks before training.

    Shapes: ``examples`` and ``supervised`` are (T,) float64, in the collection's order: examples and supervised tokens
    in each task's train split.
    """

    names: tuple[str, ...]
    examples: Tensor
    supervised: Tensor


@dataclass(frozen=True)
class Feedback:
    """What a mixture is told during training; a field is None where this update did not measure it.

    ``progress`` is the share of the budget spent, in [0, 1]. ``losses`` (T,): each task's mean loss over supervised
    tokens on the steering part of its validation split. ``alignment`` (T,): s_i, the first-order decrease of the
    validation objective in one training step that task i's share of the batch accounts for: r_i * eta * <g_i, u> in
    expectation, r_i being the rate that its examples are drawn at (p_i, where p shares out examples) and u the
    objective's gradient (through the optimizer's preconditioner).
    """

    progress: float
    losses: Tensor | None = None
    alignment: Tensor | None = None


class Mixture(Config):
    """A distribution over tasks, fixed or learnt; state is explicit and plain.

    ``unit`` says what the distribution shares out: draws of examples, or supervised tokens. ``draws`` is how counts are
    rounded in a step: ``systematic`` (low variance) or ``multinomial``. ``max_epochs`` caps how often any one task may be
    seen; None lets small tasks repeat.

    Attributes:
        plain: True if nothing is measured for it, so that it is a baseline; a run's summary says so to reports.
        advice: What to change where a report sees that the mixture ``narrowed`` early, stood ``still``, ``swings`` or left
            tasks ``behind``; it names keys of this method only.
    """

    plain: ClassVar[bool] = True
    advice: ClassVar[Mapping[str, str]] = {}

    unit: Literal["examples", "tokens"] = "examples"
    draws: Literal["systematic", "multinomial"] = "systematic"
    max_epochs: float | None = Field(None, gt=0)

    def findings(self) -> tuple[str, ...]:
        """Return sentences on how the settings were read, for the run's summary and report."""
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


class GradientGuided(Mixture):
    """A mixture that follows how much training on each task lowers a validation objective.

    Attributes:
        tau: Temperature of the objective; small follows the worst task, large the mean.
        estimator: `in_run` (read from the training backward), `forward` or `unrolled` (exact, dearer).
        refresh: Optimizer steps between validation passes.
        reads: `in_run` only: steps between two validation passes, evenly spaced, that are read and move the mixture;
            None for all.
        momentum: `in_run` only: share of the old direction in the new one at each validation pass.
        examples_per_task: Validation examples a task in each such pass.
        precondition: Take u through Adam's second moment (`in_run` only; the exact estimators always do).
    """

    plain: ClassVar[bool] = False

    tau: float = Field(1.0, gt=0)
    estimator: Literal["in_run", "forward", "unrolled"] = "in_run"
    refresh: int = Field(60, ge=1)
    reads: int | None = Field(4, ge=1)
    momentum: float = Field(0.7, ge=0, lt=1)
    examples_per_task: int = Field(4, ge=1)
    precondition: bool = True

    def objective(self, state: State) -> Objective:
        """Return what the meta-gradient is taken of."""
        raise NotImplementedError

    def rates(self, state: State) -> Tensor:
        """Return r, (T,), the rates that examples are drawn at, which a step's loss is the mean of.

        They are p, or where p shares out tokens p over ``state["lengths"]``, the tasks' mean supervised tokens (T,).
        """
        p = self.proportions(state)
        if self.unit == "examples":
            return p
        rates = p / state["lengths"]
        return rates / rates.sum()

    @property
    def looks_through_optimizer(self) -> bool:
        """Whether the inner step is the optimizer's own; else it is a plain step along the gradient."""
        return self.precondition or self.estimator != "in_run"

    def reads_at(self, age: int) -> bool:
        """Return whether a step is read, ``age`` steps after the direction was taken.

        Not the first ones: training swings across narrow valleys, and right after a direction was taken the gradients share
        its swing, which says nothing of where to go.
        """
        return self.reads_within(age + 1) > self.reads_within(age)

    def reads_within(self, steps: int) -> int:
        """Return how many of the first ``steps`` steps after a direction was taken are read, of at most ``refresh``.

        The i-th read, of i = 1 .. reads, is i * refresh // (reads + 1) steps after it.
        """
        if self.reads is None or self.reads >= self.refresh:
            return steps
        return max(min(self.reads, -(-steps * (self.reads + 1) // self.refresh) - 1), 0)


def uniform(n: int) -> Tensor:
    """Return the uniform distribution over ``n`` tasks, (n,) float64."""
    return torch.full((n,), 1.0 / n, dtype=torch.float64)
