"""What a few steps on a task alone do to the targets, from where training stands: nothing of it is first order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from apportion.budget.prices import Cost, Work
from apportion.objectives.curves import finite_losses
from apportion.signals._records import Asking, Feedback, Moment, Outlook
from apportion.signals._signal import TaskSignal, cost_of
from apportion.signals.losses import example_losses, recomputing, task_losses
from apportion.tasks.batches import Batch
from apportion.tasks.validation import Picked, batched, rotating

# Gradients are clipped at what training clips them at, unless a recipe says otherwise.
MAX_NORM = 1.0


class ProbedGains(TaskSignal):
    """Tells ``gains`` (T,) at each of ``rounds``: what ``steps`` steps on a task alone take off the objective.

    The first round probes every task, later ones the ``keep`` that are drawn most. Model and optimizer are put back after
    each probe, and all tasks of a round are measured on the same examples of the targets.

    Args:
        rounds: Shares of the budget at which it is done, rising.
        steps: Optimizer steps on a task.
        batch: Examples a step.
        examples: Of all targets together that a probe is measured on; at least one of each.
        keep: Tasks that are probed again after the first round; None for all.

    Cost, charged to `meta`: ``steps`` training steps for each task that is probed, and a forward over the targets'
    examples for each and one more. Memory: a second copy of what is trained, and of the optimizer's state.
    """

    reads = "steps"

    def __init__(self, *, rounds: Sequence[float], steps: int, batch: int, examples: int, keep: int | None) -> None:
        self._rounds, self._steps, self._batch, self._examples, self._keep = rounds, steps, batch, examples, keep
        self._done = 0

    def before_step(self, moment: Moment, asking: Asking) -> Feedback | None:
        """Probe, where a round is due and is affordable."""
        # The optimizer has no state yet before the first step, and each probe would begin it anew.
        if moment.step < 1 or self._done == len(self._rounds):
            return None
        if self.bench.allowance.ledger.progress < self._rounds[self._done]:
            return None
        count = len(self.bench.look_ahead) if self._done == 0 else self._kept
        probed = torch.argsort(asking.rates(), descending=True, stable=True)[:count].sort().values.tolist()
        lessons, told = self._lessons(self._done), self._told(self._done)
        price = sum((self._price(lessons[task]) for task in probed), self._forward(told).times(count + 1)).flops
        self._done += 1
        if not self.bench.allowance.affords(price):
            return None
        gains = torch.full((len(lessons),), torch.nan, dtype=torch.float64)
        before = self._objective(moment.model, told, asking)
        for task in probed:
            gains[task] = before - self._after(moment, lessons[task], told, asking)
        self.charge([batch for task in probed for step in lessons[task] for batch in step] + told * (count + 1), price)
        return self.told(gains=gains)

    @property
    def _kept(self) -> int:
        tasks = len(self.bench.look_ahead)
        return tasks if self._keep is None else min(self._keep, tasks)

    def _after(self, moment: Moment, lesson: list[list[Batch]], told: list[Batch], asking: Asking) -> float:
        """Return J after the steps of a lesson, and put everything back."""
        model, optimizer = moment.model, moment.optimizer
        trained = [p for p in model.parameters() if p.requires_grad]
        kept = [p.detach().clone() for p in trained]
        state = copy.deepcopy(optimizer.state_dict())
        with recomputing(model):
            for step in lesson:
                self._step(model, optimizer, trained, step)
        found = self._objective(model, told, asking)
        with torch.no_grad():
            for p, old in zip(trained, kept, strict=True):
                p.copy_(old)
        optimizer.load_state_dict(state)
        return found

    @staticmethod
    def _step(
        model: nn.Module, optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], step: list[Batch]
    ) -> None:
        optimizer.zero_grad(set_to_none=True)
        device, examples = trained[0].device, sum(map(len, step))
        for batch in step:
            (example_losses(model, batch.to(device)).sum() / examples).backward()
        nn.utils.clip_grad_norm_(trained, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _objective(self, model: nn.Module, told: list[Batch], asking: Asking) -> float:
        losses = task_losses(model, told, len(self.bench.targets), next(model.parameters()).device)
        return float(asking.objective()(finite_losses(losses)))

    def _lessons(self, turn: int) -> list[list[list[Batch]]]:
        """Return each task's steps of a round, each as micro-batches."""
        size, pad = min(self._batch, self.bench.batch_size), self.bench.pad_id

        def lesson(pool: Sequence[Picked]) -> list[list[Batch]]:
            # Seen again where there are few: as many steps on each task, or their gains could not be compared.
            count = self._steps * self._batch
            chosen = [pool[(turn * count + k) % len(pool)] for k in range(count if pool else 0)]
            starts = range(0, len(chosen), self._batch)
            return [batched(chosen[start : start + self._batch], size, pad) for start in starts]

        return [lesson(pool) for pool in self.bench.look_ahead]

    def _told(self, turn: int) -> list[Batch]:
        each = max(1, self._examples // len(self.bench.targets))
        return batched(rotating(self.bench.targets.steer, each, turn), self.bench.batch_size, self.bench.pad_id)

    def _price(self, lesson: list[list[Batch]]) -> Cost:
        prices = self.bench.prices

        def gradient(work: Work) -> float:
            return prices.forward(work) + prices.backward(work)

        return cost_of([batch for step in lesson for batch in step], gradient)

    def _forward(self, told: list[Batch]) -> Cost:
        return cost_of(told, self.bench.prices.forward)

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of all rounds; which tasks are kept is not known yet, so these are priced at the mean of all."""
        tasks = len(self.bench.look_ahead)
        rounds = []
        for turn in range(len(self._rounds)):
            count = self._kept if turn else tasks
            every = sum((self._price(lesson) for lesson in self._lessons(turn)), Cost())
            rounds.append(every.times(count / tasks) + self._forward(self._told(turn)).times(count + 1))
        return sum(rounds, Cost())

    def state_dict(self) -> dict[str, Any]:
        """Return how many rounds are done."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._done = state["done"]
