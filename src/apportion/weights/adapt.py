"""ADAPT weights: how alike an example and the anchors are in the model's own last-layer states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from apportion.signals._records import Seen
from apportion.signals.anchor_states import AnchorStates
from apportion.signals.hidden_states import Positions, position_weighted_mean, unit
from apportion.weights._weighting import Anchored, sigmoid_weights


def similarity(embeddings: Tensor, anchor: Tensor, centred: bool) -> Tensor:
    """Return s, (B,): the mean over anchors v of cos(phi(x), phi(v)), which is <phi(x), mean phi(v)>.

    Args:
        embeddings: Unit vectors phi(x), (B, d).
        anchor: The mean of the anchors' unit vectors, (d,).
        centred: Subtract the anchors' own mean score, |mean phi(v)|^2, so that 0 is as alike as the anchors are.

    Source: ADAPT weights, arXiv 2605.05227, equation 10; centring is ours.
    """
    scores = embeddings @ anchor
    return scores - anchor @ anchor if centred else scores


class Adapt(Anchored):
    """Weights by likeness to the anchors in the model's present states: w = sigmoid(s / tau).

    What it optimises: sum_k w_k l_k / N over the N examples of a step, or sum_k w_k l_k / sum_k w_k with ``normalise``;
    the weights are constants to the backward pass.
    Shapes: B examples, d hidden size; all it keeps is the mean of the anchors' embeddings, (d,).
    Cost: a training example costs no pass, its states come from the training forward itself. The anchors cost one
    forward pass every ``refresh`` optimizer steps, charged to `validation`.
    References: Zhao et al., ADAPT (arXiv 2605.05227), algorithm 1.
    Departures: the step's sum of losses is divided by its examples, as everywhere here; R = 1 refreshes every step.
    Relations: `bm25` with the model's states in place of words.

    Attributes:
        refresh: R, optimizer steps between two embeddings of the anchors.
        positions: Tokens that are pooled: `all`, `prompt` or `completion`.
        centred: Scores relative to the anchors' own mean score. Raw cosines lie close together, so that at tau = 1 the
            weights are near one constant; centred ones can take a much smaller tau.
    """

    advice: ClassVar[Mapping[str, str]] = {
        "alike": "Lower weights.tau and set weights.centred, or this is training without weights.",
    }
    refresh: int = Field(50, ge=1)
    positions: Positions = "all"
    centred: bool = False

    def needs(self) -> tuple[AnchorStates]:
        """Ask for the states of anchors and examples."""
        return (AnchorStates(self.embed, refresh=self.refresh, positions=self.positions, anchors=self.anchors_asked),)

    def embed(self, states: Tensor, members: Tensor) -> Tensor:
        """Return phi / max(|phi|, eps), (B, d), from states (B, L, d) and which are an example's tokens', (B, L) bool."""
        return unit(position_weighted_mean(states, members))

    def weigh(self, seen: Seen) -> Tensor:
        """Return w = sigmoid(s / tau), (B,)."""
        assert seen.embeddings is not None
        assert seen.anchor is not None
        return sigmoid_weights(similarity(seen.embeddings, seen.anchor, self.centred), self.tau)
