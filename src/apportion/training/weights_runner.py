"""Measures what a weighting needs, and weighs the losses of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from apportion._ranks import summed
from apportion.signals._records import Bench, Moment
from apportion.signals._signal import ExampleSignal
from apportion.signals.losses import parted_losses
from apportion.tasks.batches import Batch
from apportion.training.runner import Runner
from apportion.training.stream import StepBatches
from apportion.weights._weighting import Weighting, between

# A step whose weights all underflow has no gradient; dividing by this leaves it at zero.
SMALLEST_SUM = 1e-30


class WeightsRunner(Runner[ExampleSignal]):
    """Weighs the examples of each optimizer step by one method; one that needs nothing changes and costs nothing.

    Args:
        method: The method.
        bench: What its signal measures with.
    """

    name = "weights"

    def __init__(self, method: Weighting, bench: Bench) -> None:
        super().__init__(method.needs(), bench)
        self.method = method
        self._signal = self.signals[0] if self.signals else None
        self._waiting = 0
        self._step_sum: Tensor | float = 0.0
        self._plain: Tensor | None = None
        self._totals = torch.zeros(4, dtype=torch.float64)
        # Of each task's examples: the sum of their weights and how many they are, on this rank since the last record, and
        # on all of them before.
        self._noted, self._given = (torch.zeros(2, len(bench.tasks.tasks), dtype=torch.float64) for _ in range(2))

    def before_step(self, moment: Moment) -> None:
        """Measure what is due before a step is drawn."""
        if self._signal is not None:
            self._signal.before_step(moment, self.method.weigh)

    def given(self, model: nn.Module, drawn: StepBatches, step: int) -> list[Batch | None]:
        """Return the micro-batches of optimizer step ``step``, with the weights that are known before training on them.

        Cost: what the signal's `known` says.
        """
        batches = [batch for batch in drawn.batches if batch is not None]
        self._waiting, self._step_sum = len(batches), 0.0
        weights = self._known(model, batches, drawn, step)
        if weights is None:
            return drawn.batches
        weighted = [replace(batch, weights=w) for batch, w in zip(batches, weights, strict=True)]
        return [*[None] * (len(drawn.batches) - len(batches)), *weighted]

    def _known(self, model: nn.Module, batches: list[Batch], drawn: StepBatches, step: int) -> Sequence[Tensor] | None:
        if self._signal is None:
            return None
        draws = drawn.draws[len(drawn.draws) - len(batches) :]
        return self._signal.known(self.method.weigh, model, batches, draws, step)

    def loss(self, model: nn.Module, batch: Batch, examples: int | Tensor) -> Tensor:
        """Return sum_k w_k l_k / N over one micro-batch's examples, N being those of the optimizer step.

        Args:
            model: The model, or its wrapper.
            batch: The micro-batch, on the model's device.
            examples: N.

        The weights are constants to the backward pass. Without weights this is sum_k l_k / N. What a model adds to
        l_k, its penalty, is weighed along; methods that go by the loss, and the record, see l_k without it.
        """
        if self._signal is None:
            losses, added = parted_losses(model, batch)
            self._plain = None if added is None else losses.detach().sum() / examples
            return (losses if added is None else losses + added).sum() / examples
        with self._signal.watching(model) as watched:
            losses, added = parted_losses(model, batch)
        weights = batch.weights
        if weights is None:
            weights = self._signal.within(self.method.weigh, batch, losses.detach(), watched)
        weights = weights.to(losses.dtype)
        self._plain = losses.detach().sum() / examples
        self._waiting -= 1
        self._note(weights.double(), batch.tasks)
        return (weights * (losses if added is None else losses + added)).sum() / examples

    def _note(self, weights: Tensor, tasks: Tensor) -> None:
        # All of it stays on the device until a record asks.
        total = weights.sum()
        self._step_sum = self._step_sum + total
        noted = torch.stack([torch.ones_like(weights).sum(), total, (weights**2).sum(), between(weights).sum()])
        self._totals = self._totals.to(weights.device) + noted
        each = torch.stack([weights, torch.ones_like(weights)])
        self._noted = self._noted.to(weights.device).index_add(1, tasks, each)

    @property
    def by_task(self) -> list[float | None] | None:
        """The mean weight of each task's examples up to the last record, None for one without; None where all are plain."""
        if self._signal is None:
            return None
        return [total / count if count else None for total, count in self._given.T.tolist()]

    def plain_loss(self, loss: Tensor) -> Tensor:
        """Return the last micro-batch's share of the mean of l_k, whatever the weights: what every method can report."""
        return loss if self._plain is None else self._plain

    def rescale(self, model: nn.Module, examples: int | Tensor) -> Tensor | None:
        """After the last micro-batch's backward, turn the gradient of sum w l / N into that of sum w l / sum w.

        Returns:
            The factor N / sum_k w_k where it was applied, else None.
        """
        if not self.method.divides_by_weights or self._waiting:
            return None
        factor = examples / summed(torch.as_tensor(self._step_sum)).clamp(min=SMALLEST_SUM)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor.to(parameter.grad.dtype))
        return factor

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean, standard deviation and effective sample size of w over the examples since the record before.

        ``ess`` is (sum w)^2 / (n sum w^2): a share of the examples, in (0, 1]. Empty where nothing is weighed.

        Raises:
            ApportionError: All weights are 0 or 1, so that a similarity can no longer be told from another.
        """
        self._given = self._given + summed(self._noted).cpu()
        self._noted = torch.zeros_like(self._given)
        count, total, squares, distinct = summed(self._totals).tolist()
        if not count:
            return {}
        self.method.check_spread(int(distinct))
        self._totals = torch.zeros(4, dtype=torch.float64)
        mean = total / count
        std = math.sqrt(max(squares / count - mean**2, 0.0))
        return {"weights": {"mean": mean, "std": std, "ess": min(total**2 / (count * squares), 1.0)}}

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs."""
        totals = {"totals": self._totals, "noted": self._noted, "given": self._given}
        return {**{key: value.tolist() for key, value in totals.items()}, **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ApportionError: The anchors are not those that the run began with.
        """
        super().load_state_dict(state, device)
        self._totals, self._noted, self._given = (
            torch.tensor(state[key], dtype=torch.float64) for key in ("totals", "noted", "given")
        )
