"""LinUpper: weights that grow with an example's loss in its step, up to a cap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from apportion.signals._records import Seen
from apportion.signals.step_losses import StepLosses
from apportion.weights._weighting import Weighting


def linupper(losses: Tensor, r: float) -> Tensor:
    """Return w = N softmax(f / r) with f = min(h + 1, 1), h = (2 l - max l - min l) / (max l - min l), (N,).

    h rises from -1 to 1, so f is linear up to the middle of the losses and flat above it: outliers gain nothing.
    Ones where all losses are equal. Source: Sow et al. 2025, arXiv 2502.06733.
    """
    low, high = losses.min(), losses.max()
    h = (2 * losses - high - low) / (high - low)
    f = torch.where(high > low, (h + 1).clamp(max=1), torch.ones_like(losses))
    return len(losses) * torch.softmax(f / r, 0)


class LinUpper(Weighting):
    """Weights by the loss itself, within each optimizer step: small for what is learnt, capped for outliers.

    What it optimises: sum_k w_k l_k / N over the N examples of a step, sum_k w_k = N; the weights are constants to the
    backward pass.
    Shapes: N examples in the whole optimizer step, over all micro-batches.
    Cost: nothing where a step is one micro-batch. Of several, all losses are needed before the first backward: one more
    forward pass over the step, in evaluation mode, charged to `meta`.
    References: Sow et al. 2025, LinUpper (arXiv 2502.06733), as baseline in Zhao et al. (arXiv 2605.05227).
    Departures: r stands still.
    Relations: the mixture `loss` does to tasks what this does to examples, without a cap.

    Attributes:
        warmup: Optimizer steps at the start in which all weights are one.
        r: Temperature of the softmax; large weighs all alike.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = {
        "alike": "Lower weights.r, or this is training without weights.",
    }
    warmup: int = Field(0, ge=0)
    r: float = Field(0.4, gt=0)

    def needs(self) -> tuple[StepLosses]:
        """Ask for the losses of the step."""
        return (StepLosses(warmup=self.warmup),)

    def weigh(self, seen: Seen) -> Tensor:
        """Return w, (N,)."""
        assert seen.losses is not None
        return linupper(seen.losses, self.r)
