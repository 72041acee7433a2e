"""Loss: draw tasks by their validation loss, with no gradient at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from apportion.mixtures._mixture import Feedback, LossGuided, State, TaskSizes, uniform
from apportion.objectives.curves import finite_losses


def by_loss(losses: Tensor, temperature: float, gamma: float) -> Tensor:
    """Return p = (1 - gamma) softmax(v / temperature) + gamma / T, (T,), of validation losses v (T,)."""
    return (1 - gamma) * torch.softmax(losses / temperature, 0) + gamma / len(losses)


class Loss(LossGuided):
    """Follows a running mean of the tasks' validation losses: what is learnt worst is drawn most.

    What it optimises: the smooth worst case over tasks, as if each task's draws lowered its own loss only and all
    gradients had one norm. Fooled by tasks that cannot be learnt: they keep the highest loss and the largest share.
    Shapes: T tasks; state holds the running mean (T,) and how many measurements it is of.
    Cost, charged to `meta`: a forward pass over ``examples_per_task`` validation examples a task every ``refresh`` steps,
    or seldomer, so that all of them stay within ``max_cost`` of what training costs.
    References: none; our own baseline.
    Relations: what `adapt` becomes without transfer between tasks.

    Attributes:
        temperature: Of the softmax, in nats of loss.
        gamma: Share of the draws spread evenly whatever the losses say.
        ema: Weight of the past in the running mean.
    """

    advice: ClassVar[Mapping[str, str]] = {
        "narrowed": "Raise mixture.temperature or mixture.gamma, so that other tasks stay in play.",
        "still": "Lower mixture.temperature or mixture.gamma.",
        "swings": "Raise mixture.ema or mixture.examples_per_task.",
        "behind": "If they matter, raise mixture.gamma, the share that is spread evenly.",
    }
    temperature: float = Field(0.5, gt=0)
    gamma: float = Field(0.1, ge=0, le=1)
    ema: float = Field(0.7, ge=0, lt=1)

    def init(self, tasks: TaskSizes) -> State:
        """Return a running mean of nothing."""
        return {"mean": torch.zeros(len(tasks.names), dtype=torch.float64), "updates": torch.tensor(0)}

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,); uniform before the first measurement."""
        if not state["updates"]:
            return uniform(len(state["mean"]))
        return by_loss(state["mean"], self.temperature, self.gamma)

    def update(self, state: State, feedback: Feedback) -> State:
        """Take the measured losses into the running mean; the first measurement starts it.

        Raises:
            ApportionError: A loss that is not finite.
        """
        if feedback.losses is None:
            return state
        losses = finite_losses(feedback.losses)
        mean = self.ema * state["mean"] + (1 - self.ema) * losses if state["updates"] else losses.clone()
        return {"mean": mean, "updates": state["updates"] + 1}
