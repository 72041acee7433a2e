"""Upsample: a share of the draws on the targets' own examples, the rest on all other tasks alike."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from apportion._errors import ApportionError
from apportion.mixtures._mixture import Mixture, State, TaskSizes


def upsampled(share: float, importance: Tensor) -> Tensor:
    """Return p, (T,): ``share`` over the targets by importance w, the rest over the other tasks alike.

    Args:
        share: s, in (0, 1].
        importance: w, (T,), 0 for a task that is no target.

    Raises:
        ApportionError: No task is a target, or all of several are.
    """
    targets = importance > 0
    if len(importance) == 1:
        return torch.ones(1, dtype=torch.float64)
    if targets.all() or not targets.any():
        raise ApportionError(
            "'mixture.type: upsample' needs targets to draw more often and other tasks beside them: name some under "
            "'targets.tasks', or give 'targets.path' with 'targets.train' above 0."
        )
    others = (~targets).double()
    return share * importance / importance.sum() + (1 - share) * others / others.sum()


class Upsample(Mixture):
    """Plain baseline: a share of the draws on the targets, by importance, and the rest on the other tasks alike.

    What it optimises: nothing; the targets' own examples are what is most like them.
    Shapes: T tasks; state holds p, (T,).
    Cost: none.

    Attributes:
        share: Of the draws that go to the targets; 1 leaves everything else out.
    """

    share: float = Field(0.3, gt=0, le=1)

    def init(self, tasks: TaskSizes) -> State:
        """Return p.

        Raises:
            ApportionError: No task is a target, or all of several are.
        """
        return {"p": upsampled(self.share, tasks.importance)}
