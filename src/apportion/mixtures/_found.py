"""What trials found: a mixture that stands still from the first step on, and says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from apportion.mixtures._mixture import Mixture, State, TaskSizes

# A mixture that is settled before training is meant to stand still, and cannot swing.
SETTLED_ADVICE: Mapping[str, str] = {
    "narrowed": "Raise mixture.trial, so that the trials tell more of the tasks.",
    "swings": "Raise mixture.trial: the trials may be too short to tell what the whole run needs.",
    "behind": "If they matter, name them under targets, or raise mixture.trial.",
}


class Found(Mixture):
    """What a mixture that asks for trials trains with; it cannot be named in a recipe.

    Attributes:
        shares: p by task.
        said: The findings of the run that uses it.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = SETTLED_ADVICE

    shares: dict[str, float]
    said: tuple[str, ...] = ()

    def findings(self) -> tuple[str, ...]:
        """Return what the trials told."""
        return self.said

    def init(self, tasks: TaskSizes) -> State:
        """Return p."""
        p = torch.tensor([self.shares[name] for name in tasks.names], dtype=torch.float64)
        return {"p": p / p.sum()}
