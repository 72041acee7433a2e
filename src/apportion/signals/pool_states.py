"""The model's own last-layer states of every example of a pool, and of the targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apportion.budget.prices import Cost
from apportion.signals._pool import Look, PoolSignal, Shown, in_order, means_by_target
from apportion.signals._signal import cost_of
from apportion.signals.anchor_states import Embed
from apportion.signals.hidden_states import last_states, members, of_examples
from apportion.signals.losses import measuring
from apportion.tasks.validation import Picked


class PoolStates(PoolSignal):
    """Shows ``embeddings`` (n, d) and ``anchors`` (V, d), the mean of each target's.

    Args:
        embed: The method's embedding.

    Cost: a forward pass over the pool and the targets' steering examples, charged to `select`.
    """

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    def price(self) -> Cost:
        """Return the cost of the pass."""
        batches, _ = self.laid_out(self.target_examples())
        return self.bench.pool.cost(self.bench.prices.forward) + cost_of(batches, self.bench.prices.forward)

    def begin(self, look: Look) -> dict[str, Tensor]:
        """Embed the targets."""
        self._model = look.model
        examples = self.target_examples()
        return {"anchors": means_by_target(self._embeddings(examples), examples, len(self.bench.targets))}

    def resume(self, look: Look, state: dict[str, Tensor]) -> None:
        """Take the anchors of before."""
        self._model, self._anchors = look.model, state["anchors"]

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Embed a chunk."""
        return Shown(embeddings=self._embeddings(chunk), anchors=self._anchors)

    def _embeddings(self, picked: Sequence[Picked]) -> Tensor:
        batches, places = self.laid_out(picked)
        device, found = next(self._model.parameters()).device, []
        with measuring(self._model), torch.no_grad(), last_states(self._model) as states:
            for batch in (batch.to(device) for batch in batches):
                self._model(**batch.model_inputs)
                found.append(self._embed(of_examples(states.pop(), batch), members(batch, "all")).float().cpu())
        self.charge(batches, sum(self.bench.prices.forward(batch.work) for batch in batches))
        return in_order(found, places)
