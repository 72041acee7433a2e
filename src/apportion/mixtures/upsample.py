"""Upsample: a share of the draws on the targets' own examples, the rest on all other tasks alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from apportion._errors import ApportionError
from apportion.mixtures._mixture import Mixture, Outcome, State, TaskSizes, Trial, on_targets, uniform

GRID = "grid"


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
    return on_targets(share, importance, uniform(len(importance)))


class Upsample(Mixture):
    """Plain baseline: a share of the draws on the targets, by importance, and the rest on the other tasks alike.

    What it optimises: nothing, or with ``share: grid`` the targets' last loss over the shares of ``grid``, each tried in a
    run of its own.
    Shapes: T tasks; state holds p, (T,).
    Cost: none; of a grid, its trials, charged to `proxy`.

    Attributes:
        share: Of the draws that go to the targets; 1 leaves everything else out. ``grid`` tries those of ``grid`` and takes
            the one whose trial ends lowest.
        grid: Shares that are tried.
        trial: Share of the run's budget that each trial may spend.
    """

    share: Annotated[float, Field(gt=0, le=1)] | Literal["grid"] = 0.3
    grid: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.2, 0.5, 1.0), min_length=2)
    trial: float = Field(0.2, gt=0, le=1)

    def ask(self, tasks: TaskSizes, folder: Path) -> Mapping[str, Trial]:
        """Ask for a run of each share of a grid."""
        if self.share != GRID:
            return {}
        block = {"type": "upsample", **self.drawing()}
        return {f"share-{share:g}": Trial({"mixture": {**block, "share": share}}, self.trial) for share in self.grid}

    def tell(self, tasks: TaskSizes, outcomes: Mapping[str, Outcome]) -> Self:
        """Return the mixture with the share whose trial ended lowest, the smaller of equals."""
        if self.share != GRID:
            return self
        best = min(sorted(self.grid), key=lambda share: outcomes[f"share-{share:g}"].loss)
        return self.model_copy(update={"share": best})

    def init(self, tasks: TaskSizes) -> State:
        """Return p; of a grid that nothing is known of yet, that of its middle share.

        Raises:
            ApportionError: No task is a target, or all of several are.
        """
        share = sorted(self.grid)[len(self.grid) // 2] if isinstance(self.share, str) else self.share
        return {"p": upsampled(share, tasks.importance)}
