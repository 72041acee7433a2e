"""The exact meta-gradient, one training batch of every task and one step ahead."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from apportion._ranks import rank, summed
from apportion.budget.prices import Cost, Work
from apportion.signals import meta_gradient
from apportion.signals._cadence import Cadence
from apportion.signals._records import Asking, Feedback, Moment, Outlook
from apportion.signals._signal import TaskSignal, cost_of
from apportion.signals.inner_step import check_followed, inner_step
from apportion.signals.losses import task_losses
from apportion.signals.validation_losses import SAMPLED_TURNS
from apportion.tasks.batches import Batch
from apportion.tasks.validation import batched, rotating


class LookAhead(TaskSignal):
    """Tells ``target_losses`` and ``alignment`` (T,) every ``refresh``, exact for the examples it looks at.

    Args:
        estimator: `forward` (one forward-mode pass) or `unrolled` (autograd through the step: the literal reference).
        refresh: Optimizer steps, or a share of the budget, between two estimates.
        examples_per_task: Training examples of every task, and examples of every target, in each.

    Cost, charged to `meta`: the passes documented in `signals.meta_gradient`, and a forward over the targets' examples.
    """

    reads = "gradients"

    def __init__(
        self, *, estimator: Literal["forward", "unrolled"], refresh: int | float, examples_per_task: int
    ) -> None:
        self._literal, self._cadence, self._count = estimator == "unrolled", Cadence(refresh), examples_per_task
        self._turn = 0

    def check(self, shapes: nn.Module, optim: str, packed: bool) -> None:
        """Refuse an optimizer whose step is not known."""
        check_followed(optim)

    def before_step(self, moment: Moment, asking: Asking) -> Feedback | None:
        """Estimate where it is due."""
        if not self._cadence.due(moment.step, self.bench.allowance.ledger.progress):
            return None
        train, validation = self._batches(self._turn)
        self._turn += 1
        price = self._cost(train, validation).flops
        if not self.bench.allowance.affords(price):
            return None
        model, rates, objective = moment.model, asking.rates(), asking.objective()
        device = next(model.parameters()).device
        inner = inner_step(model, moment.optimizer, moment.lr)
        estimate = meta_gradient.unrolled if self._literal else meta_gradient.forward
        slope = torch.zeros_like(rates)
        if rank() == 0:  # a single batch, which is not shared out
            slope = estimate(model, train.to(device), validation.to(device), rates.to(device), inner, objective)
        losses = task_losses(model, [validation], len(self.bench.targets), device)
        self.charge([train, validation], price)
        return self.told(targets=losses, alignment=rates * summed(slope.double().cpu()))

    def _batches(self, turn: int) -> tuple[Batch, Batch]:
        pools = (self.bench.look_ahead, self.bench.targets.steer)
        count, pad = self._count, self.bench.pad_id
        train, validation = (batched(rotating(pool, count, turn), count * len(pool), pad)[0] for pool in pools)
        return train, validation

    def _cost(self, train: Batch, validation: Batch) -> Cost:
        prices = self.bench.prices

        def gradient(work: Work) -> float:
            return prices.forward(work) + prices.backward(work)

        # Differentiating the backward again costs about as much as the forward and backward themselves.
        again = gradient if self._literal else prices.jvp
        return cost_of([train], lambda work: again(work) + gradient(work)) + cost_of(
            [validation], lambda work: gradient(work) + prices.forward(work)
        )

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of all estimates, from the second step on."""
        times, _ = self._cadence.expected(outlook.steps)
        turns = min(int(times), SAMPLED_TURNS)
        made = sum((self._cost(*self._batches(turn)) for turn in range(turns)), Cost())
        return made.times(times / max(turns, 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the pools, and when the next estimate is due."""
        return {"turn": self._turn, "cadence": self._cadence.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._turn = state["turn"]
        self._cadence.load_state_dict(state["cadence"])
