"""DoReMi: tasks whose losses stand furthest above a reference model's count most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from apportion.signals._records import Seen
from apportion.signals.excess_losses import ExcessLosses
from apportion.weights._weighting import Weighting


def moved(shares: Tensor, excess: Tensor, eta: float, smoothing: float) -> Tensor:
    """Return a, (T,), after a step: a' ~ a exp(eta excess), then (1 - c) a' + c / T.

    Args:
        shares: a before, (T,), positive and summing to one.
        excess: Each task's excess loss, (T,).
        eta: Size of the step in the logits.
        smoothing: c.

    Source: Xie et al. 2023, DoReMi, arXiv 2305.10429, algorithm 1.
    """
    return (1 - smoothing) * torch.softmax(shares.log() + eta * excess, 0) + smoothing / len(shares)


class Doremi(Weighting):
    """Weights by task: T a_i for an example of task i, a following how far the model's losses stand above a reference's.

    What it optimises: the worst case over mixtures of the tasks' excess losses (group DRO); the weights are constants to
    the backward pass. a is moved by a step's losses first, and weighs that step.
    Shapes: T tasks; a, (T,), and the last excess losses, (T,), stand in the signal's state.
    Cost: a forward pass of the reference over every step, charged to `meta`; of a step of several micro-batches a second
    look of the model's own too.
    References: Xie et al. 2023, DoReMi (arXiv 2305.10429), algorithm 1.
    Departures: the sum over an example's tokens is divided by the example's, as everywhere here, and not by its task's. The
    reference is priced as having this model's shapes: one of another size is charged at a wrong price.
    Relations: the mixture `doremi` trains the reference, runs this, and draws by the mean of a. `linupper` goes by losses of
    examples, without a reference.

    Attributes:
        reference: Folder of a finished run on the same tasks; its model is the reference.
        eta: Size of a step in the logits of a.
        smoothing: Share of a that is spread evenly after each step.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = {
        "alike": "Raise weights.eta, or name a better trained weights.reference.",
    }
    reference: str
    eta: float = Field(1.0, gt=0)
    smoothing: float = Field(1e-3, ge=0, le=1)

    def needs(self) -> tuple[ExcessLosses]:
        """Ask for the excess losses over the reference."""
        return (ExcessLosses(self.move, reference=self.reference),)

    def move(self, shares: Tensor, excess: Tensor) -> Tensor:
        """Return a after a step."""
        return moved(shares, excess, self.eta, self.smoothing)

    def weigh(self, seen: Seen) -> Tensor:
        """Return w = T a_i, (N,)."""
        assert seen.tasks is not None
        assert seen.shares is not None
        return (len(seen.shares) * seen.shares[seen.tasks]).float()
