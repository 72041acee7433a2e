"""The smooth worst-case objective over tasks' validation losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# One temperature for every method's reported J, so that the column compares like with like.
REPORT_TAU = 1.0


def smooth_worst(losses: Tensor, tau: float) -> Tensor:
    """Return J = tau * log( (1/T) sum_j exp(v_j / tau) ), a scalar.

    tau -> 0 is the worst task, tau -> infinity the mean. Source: ADAPT mixtures (arXiv 2512.04555), with the mean
    inside the logarithm so that J of equal losses is that loss.
    """
    return tau * (torch.logsumexp(losses / tau, dim=0) - math.log(losses.shape[0]))


class Objective(Protocol):
    """What meta-gradients lower: a function of all tasks' validation losses, and its gradient."""

    def __call__(self, losses: Tensor) -> Tensor:
        """Return the objective of the losses (T,), a scalar that autograd can go through."""

    def emphasis(self, losses: Tensor) -> Tensor:
        """Return its gradient by the losses, (T,): how much each task's loss counts."""


@dataclass(frozen=True)
class SmoothWorst:
    """The objective of ADAPT mixtures: J of what each task's loss stands above its floor.

    Attributes:
        tau: Temperature.
        irreducible: f_j, taken off each task's loss, (T,); None for nothing.
    """

    tau: float
    irreducible: Tensor | None = None

    def _reducible(self, losses: Tensor) -> Tensor:
        return losses if self.irreducible is None else losses - self.irreducible.to(losses)

    def __call__(self, losses: Tensor) -> Tensor:
        """Return J of the losses (T,), a scalar."""
        return smooth_worst(self._reducible(losses), self.tau)

    def emphasis(self, losses: Tensor) -> Tensor:
        """Return dJ/dv = softmax((v - f) / tau), (T,): how much each task's loss counts."""
        return torch.softmax(self._reducible(losses) / self.tau, dim=0)
