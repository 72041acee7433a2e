"""Uniform: every task alike, whatever its size."""

from __future__ import annotations

from apportion.mixtures._mixture import Mixture, State, TaskSizes, uniform


class Uniform(Mixture):
    """Plain baseline: p_i = 1/T.

    What it optimises: nothing; small tasks repeat, large ones are seen in part.
    Shapes: T tasks; state holds p, (T,).
    Cost: none.
    References: SFT-U in Kadasi et al. (arXiv 2512.04555).
    Relations: the limit of `temperature` at t -> infinity, and where `loss`, `progress` and `adapt` start.
    """

    def init(self, tasks: TaskSizes) -> State:
        """Return p."""
        return {"p": uniform(len(tasks.names))}
