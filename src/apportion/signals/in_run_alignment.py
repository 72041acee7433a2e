"""How far training on each task goes along the objective's gradient, read from the training backward itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from apportion._ranks import summed, world
from apportion.budget.prices import Cost, Work
from apportion.signals import meta_gradient
from apportion.signals._cadence import Cadence
from apportion.signals._records import Asking, Feedback, Moment, Outlook
from apportion.signals._signal import TaskSignal, cost_of
from apportion.signals.in_run import InRunRead, check_readable
from apportion.signals.inner_step import check_followed, inner_step
from apportion.signals.validation_losses import SAMPLED_TURNS
from apportion.tasks.batches import Batch
from apportion.tasks.validation import batched, rotating


class InRunAlignment(TaskSignal):
    """Tells ``target_losses`` when a direction is taken, and ``alignment`` (T,) in the steps that are read.

    u is the gradient of the objective over a few examples of every target, averaged over the times it was taken.

    Args:
        refresh: Optimizer steps, or a share of the budget, between two directions.
        reads: Steps between two directions, evenly spaced, that are read; None for all.
        momentum: Share of the old direction in the new one.
        examples_per_task: Examples of each target that a direction is taken from.
        precondition: Take u through Adam's second moment.

    Cost, charged to `meta`: a forward and backward over the targets' examples every ``refresh``, with a forward more
    if they fill several batches; in a step that is read, one more matmul a trainable layer.
    """

    reads = "backward"
    instead = "'mixture.estimator: forward' does the same by another way"

    def __init__(
        self, *, refresh: int | float, reads: int | None, momentum: float, examples_per_task: int, precondition: bool
    ) -> None:
        self._cadence, self._momentum = Cadence(refresh, reads), momentum
        self._count, self._precondition = examples_per_task, precondition
        self._turn = 0
        self._direction: dict[str, Tensor] = {}
        self._reader: InRunRead | None = None
        self._read: list[tuple[Tensor, Tensor]] = []
        self._reading: bool | None = None
        self._tokens = 0

    def check(self, shapes: nn.Module, optim: str, packed: bool) -> None:
        """Refuse an optimizer whose step is not known, and a model whose backward cannot be read."""
        if self._precondition:
            check_followed(optim)
        check_readable(shapes, packed)

    def before_step(self, moment: Moment, asking: Asking) -> Feedback | None:
        """Take a new direction where one is due."""
        self._reading = None
        if not self._cadence.due(moment.step, self.bench.allowance.ledger.progress):
            return None
        batches = self._stretch(self._turn)
        self._turn += 1
        price = self._direction_price(batches).flops
        if not self.bench.allowance.affords(price):
            return None
        inner = inner_step(moment.model, moment.optimizer if self._precondition else None, moment.lr)
        device = next(moment.model.parameters()).device
        u, losses = meta_gradient.direction(
            moment.model, [b.to(device) for b in batches], len(self.bench.targets), asking.objective()
        )
        self.charge(batches, price)
        u = {name: inner.precondition(name, value) for name, value in u.items()}
        for name, old in self._direction.items():
            u[name].lerp_(old, self._momentum)
        self._direction = u
        self._cadence.begin()
        self._reader_of(moment.model).set_direction(u)
        return self.told(targets=losses)

    @contextmanager
    def during(self, model: nn.Module, batch: Batch, lr: float) -> Iterator[None]:
        """Collect the alignment of a micro-batch's examples, where the step is read."""
        if self._reading is None:  # the whole step is charged by now; later on other things may be
            self._reading = bool(self._direction) and self._cadence.reads(self.bench.allowance.ledger.progress)
        if not self._reading or not len(batch):
            yield
            return
        with self._reader_of(model).reading(batch, next(model.parameters()).device) as scores:
            yield
        # Left on the device until the step is over: reading it here would wait for the backward pass.
        # The loss is as many times too large as there are ranks, whose gradients are averaged.
        self._read.append((batch.tasks, lr * scores / world()))
        self._tokens += batch.processed

    def rescale(self, factor: Tensor) -> None:
        """Scale what this step's micro-batches read, as its gradient was scaled after their backward passes."""
        self._read = [(tasks, scores * factor) for tasks, scores in self._read]

    def after_step(self) -> Feedback | None:
        """Return the alignment of a step that was read."""
        if not self._reading:
            return None
        alignment = torch.zeros(len(self.bench.tasks.tasks), dtype=torch.float64)
        for tasks, scores in self._read:
            alignment.index_add_(0, tasks, scores.double().cpu())
        tokens = int(summed(torch.tensor(self._tokens)))
        self._read.clear()
        self._tokens = 0
        self.charge([], self.bench.prices.in_run_read(tokens))
        return self.told(alignment=summed(alignment))

    def step_price(self, work: Work) -> float:
        """Return the FLOPs of reading a step."""
        return self.bench.prices.in_run_read(work.tokens)

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of the directions, from the second step on, and of the steps that are read after each."""
        refreshes, read = self._cadence.expected(outlook.steps)
        turns = min(int(refreshes), SAMPLED_TURNS)
        taken = sum((self._direction_price(self._stretch(turn)) for turn in range(turns)), Cost())
        flops = read * self.bench.prices.in_run_read(outlook.draws * outlook.draw.processed / outlook.steps)
        return taken.times(refreshes / max(turns, 1)) + Cost(flops=flops)

    def _stretch(self, turn: int) -> list[Batch]:
        chosen = rotating(self.bench.targets.steer, self._count, turn)
        return batched(chosen, self.bench.batch_size, self.bench.pad_id)

    def _direction_price(self, batches: list[Batch]) -> Cost:
        prices = self.bench.prices

        def once(work: Work) -> float:
            # Of several batches, the targets' weights in the objective take a forward pass of their own.
            return prices.forward(work) * (1 + (len(batches) > 1)) + prices.backward(work)

        return cost_of(batches, once)

    def _reader_of(self, model: nn.Module) -> InRunRead:
        if self._reader is None:
            self._reader = InRunRead(model)
            self._reader.set_direction(self._direction)
        return self._reader

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the pools, the direction u, and when it was taken."""
        return {"turn": self._turn, "direction": dict(self._direction), "cadence": self._cadence.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._turn = state["turn"]
        self._cadence.load_state_dict(state["cadence"])
        self._direction = {name: value.to(device) for name, value in state["direction"].items()}
        self._reader = None
