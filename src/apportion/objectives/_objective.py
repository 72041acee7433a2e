"""What every objective is: a frozen config that makes one number of the targets' losses, and says how much each counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from apportion._config import Config

State = dict[str, Tensor]


class Objective(Config):
    """J of the target losses v, (V,), each target with its importance w > 0; state is explicit and plain.

    Measured losses move the state by `update`; within one measurement it stands still. A subclass gives `value`, in torch's
    own operations, and what of the rest it needs.
    """

    def init(self, importance: Tensor) -> State:
        """Return the state before training, from w, (V,) float64; everything the other calls need is in it."""
        return {"importance": importance}

    def update(self, state: State, losses: Tensor, progress: float) -> State:
        """Return the state after a measurement; never mutates ``state``.

        Args:
            state: The one before.
            losses: v, (V,) float64, finite.
            progress: Share of the budget spent, in [0, 1].
        """
        return state

    def value(self, state: State, losses: Tensor) -> Tensor:
        """Return J of the losses (V,), a scalar that autograd can go through."""
        raise NotImplementedError

    def emphasis(self, state: State, losses: Tensor) -> Tensor:
        """Return dJ/dv, (V,), without a graph: how much each target's loss counts."""
        with torch.enable_grad():
            at = losses.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.value(state, at), at)
        return slope.detach()

    def at(self, state: State) -> BoundObjective:
        """Return the objective in a state."""
        return BoundObjective(self, state)


@dataclass(frozen=True)
class BoundObjective:
    """An objective in a state: what a meta-gradient lowers."""

    objective: Objective
    state: State

    def __len__(self) -> int:
        return len(self.state["importance"])

    def __call__(self, losses: Tensor) -> Tensor:
        """Return J of the losses (V,), a scalar that autograd can go through."""
        return self.objective.value(self.state, losses)

    def emphasis(self, losses: Tensor) -> Tensor:
        """Return dJ/dv, (V,)."""
        return self.objective.emphasis(self.state, losses)
