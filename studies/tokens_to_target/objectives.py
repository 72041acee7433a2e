"""Other objectives for the meta-gradient than the library's; a recipe names them by import path."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from apportion.mixtures import TaskSizes
from apportion.mixtures._mixture import State
from apportion.mixtures.adapt import Adapt
from apportion.signals.objective import Objective, SmoothWorst


class Raw(Adapt):
    """J of the losses as they are, as in the paper, not of what stands above a floor."""

    def objective(self, state: State) -> Objective:
        """Return J without a floor."""
        return SmoothWorst(self.tau)


@dataclass(frozen=True)
class _WorstShare:
    """The mean of the largest share of the losses over their floors."""

    share: float
    floors: Tensor

    def __call__(self, losses: Tensor) -> Tensor:
        return self.emphasis(losses) @ losses

    def emphasis(self, losses: Tensor) -> Tensor:
        count = max(1, math.ceil(self.share * len(losses)))
        chosen = (losses - self.floors.to(losses)).detach().topk(count).indices
        return torch.zeros_like(losses).index_fill(0, chosen, 1 / count)


class Cvar(Adapt):
    """The conditional value at risk: the mean reducible loss of the worst ``share`` of tasks."""

    share: float = Field(0.25, gt=0, le=1)

    def objective(self, state: State) -> Objective:
        """Return that mean."""
        return _WorstShare(self.share, self.irreducible(state))


@dataclass(frozen=True)
class _Weighted:
    """J in which each task counts as often as its importance says."""

    tau: float
    floors: Tensor
    importance: Tensor

    def _raised(self, losses: Tensor) -> Tensor:
        return (losses - self.floors.to(losses)) / self.tau + self.importance.to(losses).log()

    def __call__(self, losses: Tensor) -> Tensor:
        return self.tau * torch.logsumexp(self._raised(losses), 0)

    def emphasis(self, losses: Tensor) -> Tensor:
        return torch.softmax(self._raised(losses), 0)


class Groups(Adapt):
    """J with tasks that the user cares more for: their importance stands in the sum, and in the prior of the logits."""

    important: tuple[str, ...]
    factor: float = Field(4.0, gt=0)

    def init(self, tasks: TaskSizes) -> State:
        """Return the start, and beside it the tasks' importance, (T,), of mean 1."""
        importance = torch.tensor([self.factor if name in self.important else 1.0 for name in tasks.names])
        return super().init(tasks) | {"importance": (importance / importance.mean()).double()}

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,), by the logits plus the logarithm of the importance."""
        return super().proportions({**state, "logits": state["logits"] + state["importance"].log()})

    def objective(self, state: State) -> Objective:
        """Return J with these weights."""
        return _Weighted(self.tau, self.irreducible(state), state["importance"] / len(state["importance"]))
