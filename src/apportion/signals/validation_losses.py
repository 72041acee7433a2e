"""The tasks' validation losses, measured every so often and within a share of what training costs."""

from __future__ import annotations

import math
from typing import Any

import torch

from apportion.budget.prices import Cost
from apportion.signals._records import Asking, Bench, Feedback, Moment, Outlook
from apportion.signals._signal import TaskSignal, cost_of
from apportion.signals.losses import task_losses
from apportion.tasks.batches import Batch
from apportion.tasks.validation import batched, rotating

# Stretches of the pools that a plan looks at, in turns: they differ in length.
SAMPLED_TURNS = 8


class ValidationLosses(TaskSignal):
    """Tells ``losses``: each task's mean loss on a few examples of the half of its validation split that methods may see.

    Args:
        refresh: Optimizer steps between measurements, at the least.
        max_cost: Most that measuring may cost, as a share of the FLOPs that training has cost so far: one that is due
            waits until training has paid for it.
        examples_per_task: Examples a task in each, another stretch of the half each time.

    Cost: a forward pass over these examples, charged to `meta`.
    """

    reads = "losses"

    def __init__(self, *, refresh: int, max_cost: float, examples_per_task: int) -> None:
        self._refresh, self._max_cost, self._count = refresh, max_cost, examples_per_task
        self._turn = 0
        self._next = 0
        self._spent = 0.0
        self._due: list[Batch] = []

    def before_step(self, moment: Moment, asking: Asking) -> Feedback | None:
        """Measure each task's loss, unless training has not yet cost enough for it: then it stays due."""
        if moment.step < self._next:
            return None
        if not self._due:
            self._due = self._stretch(self._turn)
            self._turn += 1
        allowance = self.bench.allowance
        price = sum(self.bench.prices.forward(b.work) for b in self._due)
        within = self._spent + price <= self._max_cost * allowance.ledger.spent("train").flops
        if not within or not allowance.affords(price):
            return None
        device = next(moment.model.parameters()).device
        losses = task_losses(moment.model, self._due, len(self.bench.steer), device)
        self.charge(self._due, price)
        self._spent += price
        self._next = moment.step + self._refresh
        self._due = []
        return self.told(losses)

    def _stretch(self, turn: int) -> list[Batch]:
        bench: Bench = self.bench
        return batched(rotating(bench.steer, self._count, turn), bench.batch_size, bench.pad_id)

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of all measurements: when they are due, and training has paid for them."""
        step = outlook.draws * outlook.draw.flops / outlook.steps
        sampled = [cost_of(self._stretch(turn), self.bench.prices.forward) for turn in range(SAMPLED_TURNS)]
        spent, count, due = Cost(), 0, 0
        while True:
            wanted = spent + sampled[count % SAMPLED_TURNS]
            at = max(due, math.ceil(wanted.flops / (self._max_cost * step)))
            if at >= outlook.steps:
                return spent
            spent, count, due = wanted, count + 1, at + self._refresh

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the pools, and what was spent; batches that are due are made again of the same examples."""
        return {"turn": self._turn - bool(self._due), "next": self._next, "spent": self._spent}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._turn, self._next, self._spent = state["turn"], state["next"], state["spent"]
        self._due = []
