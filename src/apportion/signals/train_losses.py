"""The training losses of a step by task, from the training forward itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from apportion._ranks import summed
from apportion.budget.prices import Cost
from apportion.signals._records import Feedback, Outlook
from apportion.signals._signal import TaskSignal
from apportion.signals.training_forward import made_by, sums_by_task, token_losses
from apportion.tasks.batches import Batch


class TrainLosses(TaskSignal):
    """Tells ``train_losses`` (T,) after each step: the mean loss over the supervised tokens that each task gave to it.

    Cost: none. The logits are those that training computes, and what is read of them is no pass.
    """

    reads = "losses"

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    @contextmanager
    def during(self, model: nn.Module, batch: Batch, lr: float) -> Iterator[None]:
        """Add a micro-batch's losses up by task; they stay on the device until the step is over."""
        with made_by(model) as made:
            yield
        sums = sums_by_task(token_losses(made[0], batch), batch, len(self.bench.tasks.tasks))
        self._sums = sums if self._sums is None else self._sums + sums

    def after_step(self) -> Feedback:
        """Return the losses of the step, over all ranks."""
        found = torch.zeros(2, len(self.bench.tasks.tasks), dtype=torch.float64) if self._sums is None else self._sums
        losses, counts = summed(found).cpu()
        self._sums = None
        return self.told(train_losses=torch.where(counts > 0, losses / counts, torch.nan))

    def price(self, outlook: Outlook) -> Cost:
        """Return nothing."""
        return Cost()
