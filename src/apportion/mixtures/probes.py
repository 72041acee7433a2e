"""Probes: a few steps on each task alone, now and then, and more of those that lowered the targets' loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from apportion._errors import ApportionError
from apportion.mixtures._mixture import Feedback, Mixture, State, TaskSizes, on_targets
from apportion.signals._signal import TaskSignal
from apportion.signals.probed_gains import ProbedGains


def standing(gains: Tensor, others: Tensor) -> Tensor:
    """Return z, (T,): gains of the tasks in ``others``, (T,) bool, less their mean, in units of their spread.

    0 for the rest, and for all where there is no spread.
    """
    centred = torch.where(others, gains - gains[others].mean(), 0.0)
    spread = centred[others].std(correction=0)
    return centred / spread if spread > 0 else torch.zeros_like(centred)


class Probes(Mixture):
    """Learnt mixture: softmax of what a few steps on each task alone took off the objective.

    What it optimises: sum_i p_i z_i + H(p) / sharpness over the simplex, z the gains of a round in units of their spread
    over tasks, joined with those of rounds before: p ~ exp(sharpness z), a share ``floor`` of it even.
    Shapes: T tasks; state holds the latest gains over the largest of their round (T,), z (T,), the importance
    (T,), the tasks' mean supervised tokens (T,) and how many rounds were told.
    Cost, charged to `meta`: in each round ``steps`` training steps for each task that is probed, and a forward over
    ``examples`` of the targets for each. Twenty tasks at the defaults take about 1,300 training examples in the first
    round and 400 in each of the others. Memory: a second copy of what is trained and of the optimizer's state.
    References: the simplest form of gains by probe, as in DynaMiCS (arXiv 2605.10770) and OP-Mix (arXiv 2605.15220).
    Departures: those papers fit slopes to several targets, or mix adapters; neither's plain form is implemented here.
    Relations: `adapt` reads the same gains to first order, from steps that training takes anyway.

    Attributes:
        rounds: Shares of the budget at which tasks are probed, rising.
        steps: Optimizer steps of a probe.
        batch: Examples a step.
        examples: Of all targets together that a probe is measured on; at least one of each.
        keep: Tasks that are probed again after the first round, those drawn most; None for all.
        sharpness: What z is multiplied by.
        memory: What a round leaves of z as it was.
        floor: Share of the draws spread evenly whatever the rest says.
        share: Of the draws that go to targets which are trained on, by importance, where other tasks are none.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = {
        "narrowed": "Lower mixture.sharpness or raise mixture.floor, so that other tasks stay in play.",
        "still": "Raise mixture.sharpness, or add an earlier one to mixture.rounds.",
        "swings": "Raise mixture.steps or mixture.examples, so that a probe tells more, or mixture.memory.",
        "behind": "If they matter, raise mixture.floor or lower mixture.sharpness.",
    }
    rounds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.05, 0.15, 0.4), min_length=1)
    steps: int = Field(4, ge=1)
    batch: int = Field(16, ge=1)
    examples: int = Field(64, ge=1)
    keep: int | None = Field(6, ge=1)
    sharpness: float = Field(4.0, gt=0)
    memory: float = Field(0.5, ge=0, lt=1)
    floor: float = Field(0.1, ge=0, lt=1)
    share: float = Field(0.5, ge=0, lt=1)

    @field_validator("rounds")
    @classmethod
    def _rising(cls, rounds: tuple[float, ...]) -> tuple[float, ...]:
        if list(rounds) != sorted(set(rounds)):
            raise ApportionError("'mixture.rounds' are shares of the budget, each larger than the one before.")
        return rounds

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for the probes."""
        return (
            ProbedGains(rounds=self.rounds, steps=self.steps, batch=self.batch, examples=self.examples, keep=self.keep),
        )

    def init(self, tasks: TaskSizes) -> State:
        """Return gains of nothing."""
        zeros = torch.zeros(len(tasks.names), dtype=torch.float64)
        return {
            "gains": zeros,
            "z": zeros.clone(),
            "importance": tasks.importance,
            "lengths": tasks.supervised / tasks.examples,
            "rounds": torch.tensor(0),
        }

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,)."""
        p = torch.softmax(self.sharpness * state["z"], 0)
        return on_targets(self.share, state["importance"], (1 - self.floor) * p + self.floor / len(p))

    def update(self, state: State, feedback: Feedback) -> State:
        """Join the gains of a round with those before."""
        if feedback.gains is None:
            return state
        probed = ~feedback.gains.isnan()
        targets = state["importance"] > 0
        # Targets that are trained on have a share of their own, and would dwarf the differences between the rest.
        others = ~targets if self.share and targets.any() and not targets.all() else torch.ones_like(targets)
        # What a task gains shrinks as training goes on: one that is not probed again keeps its part of the best one's gain.
        largest = feedback.gains[probed].abs().max()
        now = feedback.gains / largest if largest > 0 else feedback.gains
        gains = torch.where(probed, now, state["gains"])
        z = standing(gains, others)
        if int(state["rounds"]):
            z = self.memory * state["z"] + (1 - self.memory) * z
        return {**state, "gains": gains, "z": z, "rounds": state["rounds"] + 1}
