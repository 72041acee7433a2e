"""Random: a seeded part of the pool, the baseline of every selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from apportion.selections._selection import Limited

_STREAM = 4


def shuffled(sizes: Sequence[int], seed: int, stratified: bool) -> np.ndarray:
    """Return a score for each example of tasks of these sizes, (n,) in (0, 1): in a random order.

    Stratified, the scores of each task are spread evenly over (0, 1), so that any part of the order holds the same share of
    each task, to within one example.
    """
    draws = [np.random.default_rng([_STREAM, seed, task]).random(size) for task, size in enumerate(sizes)]
    if stratified:
        draws = [(draw.argsort().argsort() + 0.5) / max(len(draw), 1) for draw in draws]
    return np.concatenate(draws)


class Random(Limited):
    """Plain baseline: examples in a random order, by the recipe's seed.

    Cost: none.

    Attributes:
        stratified: Whether each task keeps the same share of its examples, to within one, in place of one draw over all.
    """

    stratified: bool = False

    def blind(self, sizes: Sequence[int], seed: int) -> Tensor:
        """Return the scores, (n, 1)."""
        return torch.from_numpy(shuffled(sizes, seed, self.stratified))[:, None]
