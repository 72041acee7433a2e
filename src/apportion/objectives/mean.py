"""Mean: every target's loss counts by its importance alone."""

from __future__ import annotations

from torch import Tensor

from apportion.objectives._objective import Objective, State


class Mean(Objective):
    """J = sum_j w_j v_j / sum_j w_j.

    What it optimises: the importance-weighted mean of the target losses, whichever is the worst.
    Shapes: V targets; state holds w (V,).
    Cost: none of its own.
    References: none; the plain choice.
    Relations: `worst` at tau -> infinity.
    """

    def value(self, state: State, losses: Tensor) -> Tensor:
        """Return J."""
        importance = state["importance"].to(losses)
        return (importance * losses).sum() / importance.sum()
