"""Progress: draw tasks by what they can still learn within the budget at their present pace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from apportion.mixtures._mixture import Feedback, LossGuided, State, TaskSizes, uniform
from apportion.objectives.curves import finite_losses, slopes


def by_progress(losses: Tensor, at: Tensor, left: float, noise: float, gamma: float) -> Tensor:
    """Return p = (1 - gamma) q + gamma / T, q_i ~ min(v_i, max(-slope_i - se_i, 0) * left) + noise.

    Args:
        losses: (n, T), oldest first, n >= 3; v is the last row.
        at: (n,), when they were measured: progress through the budget, or any other clock.
        left: What is still to come, by the same clock.
        noise: Loss, in nats, below which no difference between tasks is made.
        gamma: Share spread evenly.
    """
    slope, error = slopes(losses, at)
    to_gain = torch.minimum(losses[-1].clamp(min=0), (-slope - error).clamp(min=0) * left) + noise
    return (1 - gamma) * to_gain / to_gain.sum() + gamma / len(to_gain)


class Progress(LossGuided):
    """Follows the tasks' learning curves: what can still lose most within the budget is drawn most.

    What it optimises: the loss that is left to take, extrapolated by a line, less one standard error, so that neither a
    learnt task nor one that cannot be learnt keeps its share.
    Shapes: T tasks; state holds the last ``window`` losses (n, T) and the progress they were measured at (n,).
    Cost, charged to `meta`: a forward pass over ``examples_per_task`` validation examples a task every ``refresh`` steps,
    or seldomer, so that all of them stay within ``max_cost`` of what training costs.
    References: none; our own baseline.
    Relations: reads the same losses as `loss`, by their fall and not by their height.

    Attributes:
        window: Measurements that the line is fitted to.
        gamma: Share of the draws spread evenly whatever the curves say.
        noise: Loss, in nats, added to what every task can gain, so that gains below it make no difference.
    """

    advice: ClassVar[Mapping[str, str]] = {
        "narrowed": "Raise mixture.gamma or mixture.noise, so that other tasks stay in play.",
        "still": "Lower mixture.noise or mixture.gamma, or raise mixture.max_cost to measure more often.",
        "swings": "Raise mixture.window or mixture.examples_per_task.",
        "behind": "If they matter, raise mixture.gamma, the share that is spread evenly.",
    }
    window: int = Field(24, ge=3)
    gamma: float = Field(0.2, ge=0, le=1)
    noise: float = Field(1e-3, gt=0)

    def init(self, tasks: TaskSizes) -> State:
        """Return an empty record."""
        return {
            "losses": torch.empty((0, len(tasks.names)), dtype=torch.float64),
            "progress": torch.empty(0, dtype=torch.float64),
        }

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,); uniform before the third measurement, when a line has no error yet."""
        losses, progress = state["losses"], state["progress"]
        if len(losses) < 3:
            return uniform(losses.shape[1])
        return by_progress(losses, progress, 1 - float(progress[-1]), self.noise, self.gamma)

    def update(self, state: State, feedback: Feedback) -> State:
        """Append the measured losses; the oldest beyond the window are forgotten.

        Raises:
            ApportionError: A loss that is not finite.
        """
        if feedback.losses is None:
            return state
        now = torch.tensor([feedback.progress], dtype=torch.float64)
        losses = torch.cat([state["losses"], finite_losses(feedback.losses)[None]])
        return {
            "losses": losses[-self.window :].clone(),
            "progress": torch.cat([state["progress"], now])[-self.window :].clone(),
        }
