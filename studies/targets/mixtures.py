"""Mixtures of the study's own; a recipe names them by import path.

One changes once, which is what the two-phase oracle needs. The other is told gains that are not the measured ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from apportion.budget.prices import Cost
from apportion.mixtures import MIXTURES, Feedback, Mixture, TaskSizes
from apportion.signals import Asking, Moment, Outlook, TaskSignal

State = dict[str, Tensor]


class Clock(TaskSignal):
    """Tells what share of the budget is spent, before every step; costs nothing."""

    reads = "losses"

    def before_step(self, moment: Moment, asking: Asking) -> Feedback:
        """Return the time."""
        return Feedback(self.bench.allowance.ledger.progress)

    def price(self, outlook: Outlook) -> Cost:
        """Return nothing."""
        return Cost()


class TwoPhases(Mixture):
    """One mixture for the first ``until`` of the budget and another for the rest.

    Attributes:
        first: Share by source.
        then: Share by source.
        until: Share of the budget at which the mixture changes.
    """

    first: dict[str, float]
    then: dict[str, float]
    until: float = Field(0.3, gt=0, lt=1)

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for the time."""
        return (Clock(),)

    def init(self, tasks: TaskSizes) -> State:
        """Return both mixtures, (T,) each, and that it is the first's turn."""
        return {
            "first": in_order(self.first, tasks.names),
            "then": in_order(self.then, tasks.names),
            "changed": torch.tensor(False),
        }

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,)."""
        return state["then"] if state["changed"] else state["first"]

    def update(self, state: State, feedback: Feedback) -> State:
        """Change once ``until`` is reached."""
        return {**state, "changed": torch.tensor(feedback.progress >= self.until)}


def in_order(shares: dict[str, float], names: Sequence[str]) -> Tensor:
    """Return the shares in the order of ``names``, (T,) float64, summing to one; 0 for a name without a share."""
    p = torch.tensor([shares.get(name, 0.0) for name in names], dtype=torch.float64)
    return p / p.sum()


class Misled(Mixture):
    """A learnt mixture as it is, told gains that were turned, permuted or made up: what is left is not the gradient's.

    Attributes:
        of: The mixture's recipe block.
        told: ``turned``: the opposite sign. ``permuted``: each source is told another one's gain, the same throughout.
            ``random``: a direction of equal length, anew each time.
        seed: Of the permutation and the directions.
    """

    plain: ClassVar[bool] = False

    of: dict[str, Any]
    told: Literal["turned", "permuted", "random"]
    seed: int = 0

    @property
    def inner(self) -> Mixture:
        """The mixture that is misled."""
        return MIXTURES.build(self.of, "mixture.of").settled(targets=True)

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for what the mixture asks for."""
        return self.inner.needs()

    def init(self, tasks: TaskSizes) -> State:
        """Return the mixture's own state, and how often it was misled."""
        return {**self.inner.init(tasks), "misled": torch.tensor(0)}

    def proportions(self, state: State) -> Tensor:
        """Return the mixture's p, (T,)."""
        return self.inner.proportions(state)

    def rates(self, state: State) -> Tensor:
        """Return the mixture's r, (T,)."""
        return self.inner.rates(state)

    def update(self, state: State, feedback: Feedback) -> State:
        """Tell the mixture something else than was measured."""
        count = int(state["misled"])
        told = [feedback.alignment, feedback.drawn, feedback.squares]
        if told[0] is not None and self.told == "permuted":
            # What was read of a source goes along with how often it was.
            told = [None if one is None else misled(one, self.told, self.seed, count) for one in told]
        elif told[0] is not None:
            told[0] = misled(told[0], self.told, self.seed, count)
        count += told[0] is not None
        feedback = replace(feedback, alignment=told[0], drawn=told[1], squares=told[2])
        return {**self.inner.update(state, feedback), "misled": torch.tensor(count)}


def misled(gains: Tensor, told: str, seed: int, count: int) -> Tensor:
    """Return (T,) in place of ``gains`` (T,), of the same length.

    Args:
        gains: What was measured.
        told: As in `Misled`.
        seed: Of what is drawn.
        count: How often something was told before.
    """
    if told == "turned":
        return -gains
    rng = torch.Generator().manual_seed(1_000_003 * seed + (count if told == "random" else 0))
    if told == "permuted":
        # Moved along a random circle, so that no source is told its own.
        order = torch.randperm(len(gains), generator=rng)
        other = torch.empty_like(order)
        other[order] = order.roll(1)
        return gains[other]
    direction = torch.randn(len(gains), generator=rng, dtype=gains.dtype)
    return direction * gains.norm() / direction.norm()
