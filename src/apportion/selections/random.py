"""Random: a seeded part of the pool, the baseline of every selection."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
import torch
from torch import Tensor

from apportion.selections._selection import Limited

_STREAM = 4


def spread(sizes: Sequence[int], ties: Sequence[int]) -> list[int]:
    """Return tasks in an order, (n,), of which every start holds each task's share of it, rounded up or down.

    The j-th example of a task of size s has its place between (j - 1) n / s and j n / s; at each place the one whose end
    comes first is taken, which meets all of them if anything does. Source: earliest deadline first, Liu and Layland 1973.

    Args:
        sizes: Of the tasks, n in all.
        ties: A number a task; of equals the least comes first.
    """
    total, taken, order = sum(sizes), [0] * len(sizes), []
    waiting = [(0, task) for task, size in enumerate(sizes) if size]
    ready: list[tuple[int, int, int]] = []
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            task = heappop(waiting)[1]
            end = -(-(taken[task] + 1) * total // sizes[task])  # rounded up
            heappush(ready, (end, ties[task], task))
        task = heappop(ready)[2]
        order.append(task)
        taken[task] += 1
        if taken[task] < sizes[task]:
            heappush(waiting, (taken[task] * total // sizes[task], task))
    return order


def shuffled(sizes: Sequence[int], seed: int, stratified: bool) -> np.ndarray:
    """Return a score for each example of tasks of these sizes, (n,) in (0, 1): in a random order.

    Stratified, the highest so many hold the same share of each task, to within one example, whatever their number.
    """
    draws = [np.random.default_rng([_STREAM, seed, task]).random(size) for task, size in enumerate(sizes)]
    if stratified:
        order = spread(sizes, np.random.default_rng([_STREAM, seed, len(sizes)]).permutation(len(sizes)).tolist())
        places = np.split(np.argsort(order, kind="stable"), np.cumsum(sizes)[:-1])
        draws = [1 - (of[draw.argsort()] + 0.5) / len(order) for of, draw in zip(places, draws, strict=True)]
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
