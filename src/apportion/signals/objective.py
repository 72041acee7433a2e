"""The smooth worst-case objective over tasks' validation losses."""

from __future__ import annotations

import math

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


def emphasis(losses: Tensor, tau: float) -> Tensor:
    """Return dJ/dv = softmax(v / tau), (T,): how much each task's loss counts."""
    return torch.softmax(losses / tau, dim=0)
