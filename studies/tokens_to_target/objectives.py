"""An objective of the study's own; a recipe names it by import path."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from apportion.objectives import Objective, Reducible
from apportion.objectives.curves import State

FLOORS = Reducible()


class Cvar(Objective):
    """The conditional value at risk: the mean loss of the ``share`` of targets that can still lose most."""

    share: float = Field(0.25, gt=0, le=1)

    def init(self, importance: Tensor) -> State:
        """Return an empty record."""
        return FLOORS.init(importance)

    def update(self, state: State, losses: Tensor, progress: float) -> State:
        """Record the losses."""
        return FLOORS.update(state, losses, progress)

    def value(self, state: State, losses: Tensor) -> Tensor:
        """Return the mean loss of these targets."""
        return self.emphasis(state, losses) @ losses

    def emphasis(self, state: State, losses: Tensor) -> Tensor:
        """Return 1 / their number for these targets, (V,), and 0 for the others."""
        count = max(1, math.ceil(self.share * len(losses)))
        chosen = (losses - FLOORS.irreducible(state).to(losses)).detach().topk(count).indices
        return torch.zeros_like(losses).index_fill(0, chosen, 1 / count)
