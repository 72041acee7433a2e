"""Reducible: the smooth worst case of what each target's loss can still lose."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from apportion.objectives._objective import Objective, State
from apportion.objectives.curves import SMOOTH, empty_curve, recorded, reducible
from apportion.objectives.worst import smooth_worst


class Reducible(Objective):
    """J = tau log( sum_j w_j exp((v_j - f_j) / tau) / sum_j w_j ), f_j the part of v_j that will stay by its curve.

    What it optimises: the worst of what can still be won, so that a target that cannot be learnt does not hold J up.
    Shapes: V targets; state holds w (V,), the last ``window`` measured losses (n, V) with their progress (n,), and the
    lowest smoothed loss of each target (V,).
    Cost: none of its own.
    References: none; our own. `objectives.curves.reducible` says how f follows from the curve.
    Relations: `worst` where f is 0, as before the first measurements.

    Attributes:
        tau: Temperature; small follows the worst target, large the mean.
        window: Measurements that a target's pace is read from.
    """

    tau: float = Field(1.0, gt=0)
    window: int = Field(12, ge=SMOOTH)

    def init(self, importance: Tensor) -> State:
        """Return w and an empty record."""
        return {"importance": importance, **empty_curve(len(importance))}

    def update(self, state: State, losses: Tensor, progress: float) -> State:
        """Record the losses."""
        return recorded(state, losses, progress, self.window)

    def irreducible(self, state: State) -> Tensor:
        """Return f, (V,): what of each loss will stay, by its curve; zeros before the first measurement."""
        losses = state["losses"]
        if not len(losses):
            return torch.zeros_like(state["importance"])
        still = reducible(losses, state["progress"], state["best"], self.window)
        return losses[-1] - still.minimum(losses[-1])

    def value(self, state: State, losses: Tensor) -> Tensor:
        """Return J."""
        return smooth_worst(losses - self.irreducible(state).to(losses), self.tau, state["importance"])

    def emphasis(self, state: State, losses: Tensor) -> Tensor:
        """Return dJ/dv = softmax((v - f) / tau + log w), (V,)."""
        above = losses - self.irreducible(state).to(losses)
        return torch.softmax(above / self.tau + state["importance"].to(losses).log(), dim=0)
