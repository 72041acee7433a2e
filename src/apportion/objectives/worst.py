"""Worst: the smooth worst case over the targets."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from apportion.objectives._objective import Objective, State

# One temperature for every method's reported J, so that the column compares like with like.
REPORT_TAU = 1.0


def smooth_worst(losses: Tensor, tau: float, importance: Tensor | None = None) -> Tensor:
    """Return J = tau * log( sum_j w_j exp(v_j / tau) / sum_j w_j ), a scalar.

    tau -> 0 is the worst target, tau -> infinity the mean. Source: ADAPT mixtures (arXiv 2512.04555), with the mean inside
    the logarithm so that J of equal losses is that loss.

    Args:
        losses: v, (V,).
        tau: Temperature.
        importance: w > 0, (V,); None for all alike.
    """
    weights = torch.ones_like(losses) if importance is None else importance.to(losses)
    return tau * (torch.logsumexp(losses / tau + weights.log(), dim=0) - math.log(float(weights.sum())))


class Worst(Objective):
    """J = tau log( sum_j w_j exp(v_j / tau) / sum_j w_j ), of the losses as they are.

    What it optimises: the worst target at small tau, their mean at large.
    Shapes: V targets; state holds w (V,).
    Cost: none of its own.
    References: Kadasi et al., ADAPT (arXiv 2512.04555): the paper's objective.
    Relations: `reducible` takes off what a target's loss will keep.

    Attributes:
        tau: Temperature; small follows the worst target, large the mean.
    """

    tau: float = Field(1.0, gt=0)

    def value(self, state: State, losses: Tensor) -> Tensor:
        """Return J."""
        return smooth_worst(losses, self.tau, state["importance"])

    def emphasis(self, state: State, losses: Tensor) -> Tensor:
        """Return dJ/dv = softmax(v / tau + log w), (V,)."""
        return torch.softmax(losses / self.tau + state["importance"].to(losses).log(), dim=0)
