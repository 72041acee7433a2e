"""Learning curves of validation losses: their slope, and what each can still lose within the budget."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion._errors import ApportionError
from apportion.objectives._objective import State

# Measurements that a curve's level is the mean of: single ones are of few examples.
SMOOTH = 3


def finite_losses(losses: Tensor) -> Tensor:
    """Return the measured losses in float64 on the CPU, (n,).

    Raises:
        ApportionError: One is not finite, and nothing can be steered by it.
    """
    losses = losses.detach().cpu().double()
    if not torch.isfinite(losses).all():
        raise ApportionError(
            "A task's validation loss is not a finite number: training has diverged; lower 'training.learning_rate'."
        )
    return losses


def slopes(losses: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a line to each column of losses by least squares.

    Args:
        losses: (n, T), n >= 3.
        at: When they were measured, (n,).

    Returns:
        Slope and its standard error, (T,) each; zeros where all measurements are of one moment.
    """
    x = at - at.mean()
    spread = (x**2).sum()
    if spread == 0:
        return torch.zeros_like(losses[0]), torch.zeros_like(losses[0])
    centred = losses - losses.mean(0)
    slope = (x @ centred) / spread
    residual = centred - x[:, None] * slope
    return slope, ((residual**2).sum(0) / (len(at) - 2) / spread).sqrt()


def reducible(losses: Tensor, at: Tensor, best: Tensor, window: int) -> Tensor:
    """Return r_i, what each loss can still lose within the budget, (T,), by its curve so far.

    r_i = min(v_i, max(-slope_i (1 - progress), v_i - best_i, 0)): what it loses at its present pace, or, where it was
    lower before, what it has to win back. v is the mean of the last three measurements; with fewer, r is the last loss.

    Args:
        losses: Measurements, (n, T), oldest first, n >= 1.
        at: Progress of each in [0, 1], (n,).
        best: Lowest such mean so far, (T,).
        window: Last measurements that the line is fitted to.
    """
    if len(losses) < SMOOTH:
        return losses[-1].clamp(min=0)
    now = losses[-SMOOTH:].mean(0)
    slope, _ = slopes(losses[-window:], at[-window:])
    gain = torch.maximum(-slope * (1 - at[-1]), now - best)
    return torch.minimum(gain.clamp(min=0), now.clamp(min=0))


def empty_curve(count: int) -> State:
    """Return the record of ``count`` losses before the first measurement: ``losses``, ``progress`` and ``best``."""
    return {
        "losses": torch.empty((0, count), dtype=torch.float64),
        "progress": torch.empty(0, dtype=torch.float64),
        "best": torch.full((count,), torch.inf, dtype=torch.float64),
    }


def recorded(curve: State, losses: Tensor, progress: float, window: int) -> State:
    """Return the record with one more measurement, of which the last ``window`` are kept; other keys stay as they are."""
    rows = torch.cat([curve["losses"], losses[None]])[-window:]
    at = torch.cat([curve["progress"], torch.tensor([progress], dtype=torch.float64)])[-window:]
    best = curve["best"]
    if len(rows) >= SMOOTH:
        best = torch.minimum(best, rows[-SMOOTH:].mean(0))
    return {**curve, "losses": rows, "progress": at, "best": best}
