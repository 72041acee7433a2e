"""Proportional: tasks by their size, which is what pouring all data sets into one gives."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from apportion.mixtures._mixture import Mixture, State, TaskSizes

By = Literal["examples", "supervised"]


def proportional(sizes: Tensor) -> Tensor:
    """Return p_i = n_i / sum_j n_j, (T,), of sizes (T,)."""
    return sizes.double() / sizes.double().sum()


class Proportional(Mixture):
    """Plain baseline: p_i ~ size of task i.

    What it optimises: the mean loss over examples, as they come; large tasks dominate.
    Shapes: T tasks; state holds p, (T,).
    Cost: none.
    References: SFT-P in Kadasi et al. (arXiv 2512.04555).
    Relations: `temperature` at t = 1.

    Attributes:
        by: What a size is: `examples` (with draws by examples, every task ends at the same number of epochs) or
            `supervised` tokens (the same with ``unit: tokens``).
    """

    by: By = "examples"

    def init(self, tasks: TaskSizes) -> State:
        """Return p."""
        return {"p": proportional(getattr(tasks, self.by))}
