"""Perplexity: examples by their loss under the model as it starts."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from apportion.selections._selection import Limited
from apportion.signals._pool import Shown
from apportion.signals.pool_losses import PoolLosses


def standing(losses: Tensor, keep: str) -> Tensor:
    """Return how far each example, (n,), is from what is wanted least: ``low`` or ``high`` losses, or those in the ``mid``.

    Source: Marion et al. 2023 (arXiv 2309.04564), which keeps either end or the middle; s = -log P in arXiv 2605.05227,
    equation 3.
    """
    return {"low": -losses, "high": losses, "mid": -(losses - losses.median()).abs()}[keep]


class Perplexity(Limited):
    """Keeps examples whose mean loss under the starting model is low, high, or in the middle; targets have no say.

    What it optimises: nothing. Of a model from scratch the losses say next to nothing.
    Shapes: n examples, one score each.
    Cost: a forward pass over the pool, charged to `select`.
    References: Marion et al. 2023 (arXiv 2309.04564); Ankner et al. 2024 (arXiv 2405.20541).

    Attributes:
        keep: ``low``, ``mid`` or ``high`` losses.
    """

    plain: ClassVar[bool] = False

    keep: Literal["low", "mid", "high"] = "mid"

    def needs(self) -> tuple[PoolLosses]:
        """Ask for the losses."""
        return (PoolLosses(),)

    def score(self, shown: Shown) -> Tensor:
        """Return the losses, (n, 1)."""
        assert shown.losses is not None
        return shown.losses[:, None]

    def gathered(self, scores: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, and what they are ranked by."""
        return scores[:, 0], standing(scores[:, 0].double(), self.keep)
