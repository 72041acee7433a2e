"""The loss of every example of a pool under the model as it starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from apportion.budget.prices import Cost
from apportion.signals._pool import Look, PoolSignal, Shown, in_order
from apportion.signals.losses import example_losses, measuring
from apportion.tasks.validation import Picked


class PoolLosses(PoolSignal):
    """Shows ``losses`` (n,), each example's mean over its supervised tokens.

    Cost: a forward pass over the pool, charged to `select`.
    """

    def price(self) -> Cost:
        """Return the cost of the pass."""
        return self.bench.pool.cost(self.bench.prices.forward)

    def resume(self, look: Look, state: dict[str, torch.Tensor]) -> None:
        """Take the model."""
        self._model = look.model

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Measure the losses of a chunk."""
        batches, places = self.laid_out(chunk)
        device = next(self._model.parameters()).device
        with measuring(self._model), torch.no_grad():
            losses = [example_losses(self._model, batch.to(device)).float().cpu() for batch in batches]
        self.charge(batches, sum(self.bench.prices.forward(batch.work) for batch in batches))
        return Shown(losses=in_order(losses, places))
