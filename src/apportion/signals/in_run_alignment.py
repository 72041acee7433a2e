"""How far training on each task goes along the objective's gradient, read from the training backward itself."""

from __future__ import annotations

import math
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

PAID = "paid"


class InRunAlignment(TaskSignal):
    """Tells ``target_losses`` when a direction is taken, and ``alignment`` (T,) in the steps that are read.

    With it ``drawn`` and ``squares``, (T,): how many of each task's examples were read, and the sum of the squares of what
    each of these adds to the alignment. u is the gradient of the objective over a few examples of every target, averaged
    over the times it was taken.

    Args:
        refresh: Optimizer steps, or a share of the budget, between two directions.
        reads: Steps between two directions, evenly spaced, that are read; None for all, ``paid`` for as many as cost what
            taking the direction did, right after it.
        momentum: Share of the old direction in the new one.
        examples_per_task: Examples of each target that a direction is taken from.
        examples: Examples of all targets together that a direction is taken from, in place of these; at least one of each.
        max_cost: Most that all of this may cost, as a share of what training will, or of a budget in FLOPs: directions are
            taken from fewer examples where it would be more. None for no limit; needs ``examples``, ``paid`` and a
            ``refresh`` that is a share.
        precondition: Take u through Adam's second moment.

    Cost, charged to `meta`: a forward and backward over the targets' examples every ``refresh``, with a forward more
    if they fill several batches; in a step that is read, one more matmul a trainable layer.
    """

    reads = "backward"
    instead = "'mixture.estimator: forward' does the same by another way"

    def __init__(
        self,
        *,
        refresh: int | float,
        reads: int | str | None,
        momentum: float,
        examples_per_task: int,
        precondition: bool,
        examples: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        self._paid = reads == PAID
        self._cadence, self._momentum = Cadence(refresh, None if isinstance(reads, str) else reads), momentum
        self._count, self._precondition = examples_per_task, precondition
        self._examples, self._refresh, self._max_cost = examples, refresh, max_cost
        self._taken = 0
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
        ledger = self.bench.allowance.ledger
        training = ledger.spent("train").flops / max(ledger.progress, 1e-9)
        batches = self._stretch(self._taken, self._count_within(training))
        price = self._direction_price(batches).flops
        if not self.bench.allowance.affords(price):
            return None
        self._taken += sum(map(len, batches)) if self._examples else 1
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
        self._cadence.begin(self._reads_paid(price, ledger.spent("train").processed / moment.step))
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
        # Sums, counts and squares of what was read of each task, (3, T).
        found = torch.zeros(3, len(self.bench.tasks.tasks), dtype=torch.float64)
        for tasks, scores in self._read:
            each = scores.double().cpu()
            found.index_add_(1, tasks, torch.stack([each, torch.ones_like(each), each**2]))
        tokens = int(summed(torch.tensor(self._tokens)))
        self._read.clear()
        self._tokens = 0
        self.charge([], self.bench.prices.in_run_read(tokens))
        alignment, drawn, squares = summed(found)
        return self.told(alignment=alignment, drawn=drawn, squares=squares)

    def step_price(self, work: Work) -> float:
        """Return the FLOPs of reading a step."""
        return self.bench.prices.in_run_read(work.tokens)

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of the directions, from the second step on, and of the steps that are read after each."""
        count, at = self._count_within(outlook.draws * outlook.draw.flops), 0
        tokens, prices = outlook.draws * outlook.draw.processed / outlook.steps, []
        times, _ = self._cadence.expected(outlook.steps, 1)
        for _ in range(min(max(int(times), 1), SAMPLED_TURNS)):
            batches = self._stretch(at, count)
            prices.append(self._direction_price(batches))
            at += sum(map(len, batches)) if self._examples else 1
        mean = sum(prices, Cost()).times(1 / len(prices))
        refreshes, read = self._cadence.expected(outlook.steps, self._reads_paid(mean.flops, tokens))
        return mean.times(refreshes) + Cost(flops=read * self.bench.prices.in_run_read(tokens))

    def _count_within(self, training: float) -> int:
        """Return how many examples of each target a direction is taken from, where training will cost so many FLOPs.

        A budget in FLOPs is what all of the run will cost, and needs no forecast.
        """
        if self._examples is None:
            return self._count
        targets = len(self.bench.targets)
        wanted = max(1, self._examples // targets)
        if self._max_cost is None:
            return wanted
        budget = self.bench.allowance.ledger.budget
        # Of what each direction may cost, half is for reading it.
        allowed = self._max_cost * (budget.limit if budget.unit == "flops" else training) * self._refresh / 2
        dear = self._direction_price(self._stretch(0, wanted)).flops
        return max(1, min(wanted, int(wanted * allowed / dear)))

    def _reads_paid(self, price: float, tokens: float) -> int | None:
        """Return how many steps of so many tokens are read after a direction of that price; None where that is fixed."""
        return max(1, math.ceil(price / self.bench.prices.in_run_read(tokens))) if self._paid else None

    def _stretch(self, taken: int, count: int) -> list[Batch]:
        """Return the next examples of every target, by how often one was ``taken``, or by how many examples were."""
        steer = self.bench.targets.steer
        if self._examples is None:
            chosen = rotating(steer, count, taken)
        else:
            start = taken // len(steer)
            chosen = [items[(start + k) % len(items)] for items in steer for k in range(min(count, len(items)))]
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
        return {"taken": self._taken, "direction": dict(self._direction), "cadence": self._cadence.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._taken = state["taken"]
        self._cadence.load_state_dict(state["cadence"])
        self._direction = {name: value.to(device) for name, value in state["direction"].items()}
        self._reader = None
