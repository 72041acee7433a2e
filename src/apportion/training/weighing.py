"""Measures what a weighting asks for, charges it, and weighs the losses of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from apportion._errors import ApportionError
from apportion._ranks import joined, part_of, summed, world
from apportion.budget.allowance import Allowance
from apportion.budget.prices import Prices
from apportion.signals.hidden_states import last_states, members, of_examples
from apportion.signals.losses import example_losses, measuring, parted_losses
from apportion.tasks.batches import Batch
from apportion.training.stream import StepBatches
from apportion.weights._weighting import Anchored, LossGuided, StateGuided, Weighting, between, too_sharp

# A step whose weights all underflow has no gradient; dividing by this leaves it at zero.
SMALLEST_SUM = 1e-30


class Weighing:
    """Weighs the examples of each optimizer step by one method; one that is told nothing changes and costs nothing.

    Args:
        method: The method.
        anchors: Batches of the anchors, of a method that embeds them.
        anchors_fingerprint: Of the anchors' contents; a run is resumed with the same ones only.
        pool: Per task, the weights of its train examples, of a method that has them before training.
        several: Whether a step is made of several micro-batches.
        allowance: What may still be spent; anchors are charged to its ledger's `validation` account, a second look at a
            step's losses to `meta`.
        flops: Prices of the model's passes.
    """

    def __init__(
        self,
        method: Weighting,
        *,
        anchors: Sequence[Batch],
        anchors_fingerprint: str,
        pool: Sequence[Tensor] | None,
        several: bool,
        allowance: Allowance,
        flops: Prices,
    ) -> None:
        self.method = method
        self.anchors = list(anchors)
        self.active = pool is not None or isinstance(method, StateGuided | LossGuided)
        self.looks_twice = several and isinstance(method, LossGuided)
        self.anchor_flops = sum(flops.forward(b.work) for b in self.anchors)
        self._fingerprint, self._pool = anchors_fingerprint, pool
        self._allowance, self._ledger, self._flops = allowance, allowance.ledger, flops
        self._normalise = isinstance(method, Anchored) and method.normalise
        self._anchor: Tensor | None = None
        self._waiting = 0
        self._step_sum: Tensor | float = 0.0
        self._plain: Tensor | None = None
        self._totals = torch.zeros(4, dtype=torch.float64)

    def prepare(self, model: nn.Module, step: int) -> None:
        """Embed the anchors if that is due before optimizer step ``step`` (from 0).

        Cost: one forward pass over the anchors, without gradient, charged to `validation`; left out where a budget in
        FLOPs has no room for it and earlier embeddings can serve on.
        """
        method = self.method
        if not isinstance(method, StateGuided) or (self._anchor is not None and step % method.refresh):
            return
        if self._anchor is not None and not self._allowance.affords(self.anchor_flops):
            return
        device, config = next(model.parameters()).device, cast("Any", model.config)
        mine, total = part_of(self.anchors), torch.zeros(config.get_text_config().hidden_size, device=device)
        with measuring(model), torch.no_grad(), last_states(model) as states:
            for batch in (batch.to(device) for batch in mine):
                model(**batch.model_inputs)
                embedded = method.embed(of_examples(states.pop(), batch), members(batch, method.positions))
                total = total + embedded.sum(0)
        self._charge("validation", mine)
        self._anchor = summed(total) / sum(map(len, self.anchors))

    def given(self, model: nn.Module, drawn: StepBatches, step: int) -> list[Batch | None]:
        """Return the micro-batches of optimizer step ``step``, with the weights that are known before training on them.

        Cost: a loss-guided method takes one forward pass over a step of several micro-batches, charged to `meta`.
        """
        batches = [batch for batch in drawn.batches if batch is not None]
        self._waiting, self._step_sum = len(batches), 0.0
        weights = self._known(model, batches, drawn, step)
        if weights is None:
            return drawn.batches
        weighted = [replace(batch, weights=w) for batch, w in zip(batches, weights, strict=True)]
        return [*[None] * (len(drawn.batches) - len(batches)), *weighted]

    def _known(self, model: nn.Module, batches: list[Batch], drawn: StepBatches, step: int) -> Sequence[Tensor] | None:
        if self._pool is not None:
            pool = self._pool
            weights = [torch.tensor([float(pool[task][index]) for task, index in draws]) for draws in drawn.draws]
            return weights[len(weights) - len(batches) :]
        method = self.method
        if not isinstance(method, LossGuided):
            return None
        if step < method.warmup:
            return [torch.ones(len(batch)) for batch in batches]
        if len(batches) == world() == 1:
            return None  # the training forward's own losses are all there are
        device = next(model.parameters()).device
        with measuring(model), torch.no_grad():
            losses = [example_losses(model, batch.to(device)) for batch in batches]
        self._charge("meta", batches)
        every, mine = joined(torch.cat(losses))
        return method.weigh(every)[mine].split([len(batch) for batch in batches])

    def loss(self, model: nn.Module, batch: Batch, examples: int | Tensor) -> Tensor:
        """Return sum_k w_k l_k / N over one micro-batch's examples, N being those of the optimizer step.

        Args:
            model: The model, or its wrapper.
            batch: The micro-batch, on the model's device.
            examples: N.

        The weights are constants to the backward pass. Without weights this is sum_k l_k / N. What a hypernetwork adds to
        l_k is weighed along; methods that go by the loss, and the record, see l_k without it.
        """
        if isinstance(self.method, StateGuided):
            with last_states(model) as states:
                losses, added = parted_losses(model, batch)
            weights = self._compared(self.method, batch, states[0]).to(losses.dtype)
        else:
            losses, added = parted_losses(model, batch)
            if not self.active and added is None:
                return losses.sum() / examples
            weights = self._weights(batch, losses.detach()).to(losses.dtype)
        self._plain = losses.detach().sum() / examples
        if self.active:
            self._waiting -= 1
            self._note(weights.double())
        return (weights * (losses if added is None else losses + added)).sum() / examples

    def _weights(self, batch: Batch, losses: Tensor) -> Tensor:
        if batch.weights is not None:
            return batch.weights
        if not self.active:
            return torch.ones_like(losses)
        assert isinstance(self.method, LossGuided)
        return self.method.weigh(losses)

    def _compared(self, method: StateGuided, batch: Batch, states: Tensor) -> Tensor:
        assert self._anchor is not None
        return method.weigh(method.embed(of_examples(states, batch), members(batch, method.positions)), self._anchor)

    def _note(self, weights: Tensor) -> None:
        # All of it stays on the device until a record asks.
        total = weights.sum()
        self._step_sum = self._step_sum + total
        noted = torch.stack([torch.ones_like(weights).sum(), total, (weights**2).sum(), between(weights).sum()])
        self._totals = self._totals.to(weights.device) + noted

    def plain_loss(self, loss: Tensor) -> Tensor:
        """Return the last micro-batch's share of the mean of l_k, whatever the weights: what every method can report."""
        return loss if self._plain is None else self._plain

    def rescale(self, model: nn.Module, examples: int | Tensor) -> Tensor | None:
        """After the last micro-batch's backward, turn the gradient of sum w l / N into that of sum w l / sum w.

        Returns:
            The factor N / sum_k w_k where it was applied, else None.
        """
        if not self._normalise or self._waiting:
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
        count, total, squares, distinct = summed(self._totals).tolist()
        if not count:
            return {}
        if isinstance(self.method, Anchored) and not distinct:
            raise too_sharp(self.method.tau)
        self._totals = torch.zeros(4, dtype=torch.float64)
        mean = total / count
        std = math.sqrt(max(squares / count - mean**2, 0.0))
        return {"weights": {"mean": mean, "std": std, "ess": min(total**2 / (count * squares), 1.0)}}

    def _charge(self, account: Any, mine: Sequence[Batch]) -> None:  # noqa: ANN401
        """Charge a forward pass over the batches that the ranks have each taken."""
        counts = torch.tensor([(b.supervised, b.processed, b.padded) for b in mine], dtype=torch.int64)
        supervised, processed, padded = summed(counts.reshape(-1, 3).sum(0)).tolist()
        price = sum(self._flops.forward(batch.work) for batch in mine)
        flops = float(summed(torch.tensor(price, dtype=torch.float64)))
        self._ledger.charge(account, supervised=supervised, processed=processed, padded=padded, flops=flops)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs, the anchors' mean included."""
        return {"fingerprint": self._fingerprint, "anchor": self._anchor, "totals": self._totals.tolist()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ApportionError: The anchors are not those that the run began with.
        """
        if state["fingerprint"] != self._fingerprint:
            raise ApportionError(
                "The files under 'weights.files' changed since this run began: put them back to resume it, "
                "or start in a new folder."
            )
        self._anchor = None if state["anchor"] is None else state["anchor"].to(device)
        self._totals = torch.tensor(state["totals"], dtype=torch.float64)
