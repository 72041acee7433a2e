"""The losses of a step's examples, all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from apportion._ranks import joined, world
from apportion.budget.prices import Cost, Work
from apportion.signals._records import Draw, Outlook, Seen
from apportion.signals._signal import ExampleSignal, Weigh
from apportion.signals.losses import example_losses, measuring
from apportion.tasks.batches import Batch


class StepLosses(ExampleSignal):
    """Shows ``losses`` (N,) of the N examples of an optimizer step.

    Args:
        warmup: Optimizer steps at the start in which nothing is shown, and all weights are one.

    Cost: nothing where a step is one micro-batch. Of several, all losses are needed before the first backward: one more
    forward pass over the step, in evaluation mode, charged to `meta`.
    """

    reads = "losses"

    def __init__(self, *, warmup: int) -> None:
        self._warmup = warmup

    def known(
        self, weigh: Weigh, model: nn.Module, batches: Sequence[Batch], draws: Sequence[Sequence[Draw]], step: int
    ) -> Sequence[Tensor] | None:
        """Return the weights of a step of several micro-batches, by a second look at it."""
        if step < self._warmup:
            return [torch.ones(len(batch)) for batch in batches]
        if len(batches) == world() == 1:
            return None  # the training forward's own losses are all there are
        device = next(model.parameters()).device
        with measuring(model), torch.no_grad():
            losses = [example_losses(model, batch.to(device)) for batch in batches]
        self.charge_parts(batches)
        every, mine = joined(torch.cat(losses))
        return weigh(Seen(losses=every))[mine].split([len(batch) for batch in batches])

    def within(self, weigh: Weigh, batch: Batch, losses: Tensor, watched: Sequence[Tensor]) -> Tensor:
        """Return the weights by the losses of the one micro-batch."""
        return weigh(Seen(losses=losses))

    def step_price(self, work: Work) -> float:
        """Return the FLOPs of the second look."""
        return self.bench.prices.forward(work) if self.bench.several else 0.0

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of the second looks, from the end of the warm-up on."""
        if not self.bench.several:
            return Cost()
        looked = outlook.draws * max(outlook.steps - self._warmup, 0) / outlook.steps
        return Cost(outlook.draw.supervised, outlook.draw.processed, outlook.forward).times(looked)
