"""Uniform: every example alike."""

from __future__ import annotations

from apportion.weights._weighting import Weighting


class Uniform(Weighting):
    """Plain baseline: w_k = 1.

    What it optimises: the mean of the examples' losses, as training without weights does, bit for bit.
    Shapes: none.
    Cost: none.
    References: full-data fine-tuning in Zhao et al. (arXiv 2605.05227).
    Relations: where `linupper` starts, and, but for a constant factor, the limit of `adapt` and `bm25` at tau -> infinity.
    """
