"""Embedding: examples whose states are like those of the targets."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.selections._selection import Targeted
from apportion.signals._pool import PoolSignal, Shown
from apportion.signals.hidden_states import position_weighted_mean, unit
from apportion.signals.pool_sentences import PoolSentences
from apportion.signals.pool_states import PoolStates


def mean_cosines(embeddings: Tensor, anchors: Tensor) -> Tensor:
    """Return s, (n, V): the mean over each target's examples v of cos(phi(x), phi(v)).

    Args:
        embeddings: phi(x), unit vectors, (n, d).
        anchors: The mean of each target's phi(v), (V, d): the mean of the cosines is the product with the mean.
    """
    return embeddings @ anchors.T


def phi(states: Tensor, members: Tensor) -> Tensor:
    """Return each example's embedding, (B, d), a unit vector; arguments are `position_weighted_mean`'s."""
    return unit(position_weighted_mean(states, members))


class Embedding(Targeted):
    """Keeps examples whose embedding has a high mean cosine with the targets'.

    What it optimises: nothing; likeness of texts as the model reads them.
    Shapes: n examples, V targets, d hidden size.
    Cost: a forward pass over pool and targets, charged to `select`.
    References: RDS+ of Ivison et al. 2025 (arXiv 2503.01807), position-weighted means of the last layer's states; equation 2
    of arXiv 2605.05227.
    Departures: RDS+ takes turns over single target examples; ``aggregate: turns`` takes them over targets.
    Relations: `weights.adapt` with the scores of before training.

    Attributes:
        model: A sentence-transformers model, a folder or a Hub name, in place of the model's own states.
    """

    model: str | None = None

    def needs(self) -> tuple[PoolSignal, ...]:
        """Ask for the states, or for sentence embeddings."""
        return (PoolStates(phi) if self.model is None else PoolSentences(self.model),)

    def score(self, shown: Shown) -> Tensor:
        """Return the mean cosines, (n, V)."""
        assert shown.embeddings is not None and shown.anchors is not None
        return mean_cosines(shown.embeddings, shown.anchors).to(torch.float32)
