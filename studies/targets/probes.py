"""Gains by probe: what a few steps on each source alone do to the targets, from where training stands.

A mixture of the study's own, to hold the meta-gradient against: nothing of it is first order, and nothing of it is cheap.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from apportion.budget.prices import Cost, Work
from apportion.mixtures import Feedback, Mixture, TaskSizes
from apportion.signals import Asking, Moment, Outlook, TaskSignal
from apportion.signals._signal import cost_of
from apportion.signals.losses import example_losses, task_losses
from apportion.tasks.batches import Batch
from apportion.tasks.validation import batched, rotating

State = dict[str, Tensor]


class ProbedGains(TaskSignal):
    """Tells ``alignment`` (T,) at each of ``rounds``: what ``steps`` steps on each source alone take off the targets' mean.

    Model and optimizer are put back after each. Cost, charged to `meta`: T times ``steps`` training steps, and T + 1 forward
    passes over ``examples`` of each target.

    Args:
        rounds: Shares of the budget at which it is done.
        steps: Optimizer steps on a source.
        batch: Examples a step.
        examples: Of each target.
    """

    reads = "gradients"

    def __init__(self, rounds: tuple[float, ...], steps: int, batch: int, examples: int) -> None:
        self._rounds, self._steps, self._batch, self._examples = rounds, steps, batch, examples
        self._done = 0

    def before_step(self, moment: Moment, asking: Asking) -> Feedback | None:
        """Probe, where a round is due and is affordable."""
        if self._done == len(self._rounds) or self.bench.allowance.ledger.progress < self._rounds[self._done]:
            return None
        trained, told = self._batches(self._done)
        price = self._cost(trained, told).flops
        self._done += 1
        if moment.step < 1 or not self.bench.allowance.affords(price):
            return None
        model, count = moment.model, len(self.bench.targets)
        device = next(model.parameters()).device
        kept = copy.deepcopy((model.state_dict(), moment.optimizer.state_dict()))
        before = float(task_losses(model, told, count, device).mean())
        gains = []
        for batches in trained:
            for batch in batches:
                self._step(model, moment.optimizer, batch.to(device))
            gains.append(before - float(task_losses(model, told, count, device).mean()))
            model.load_state_dict(kept[0])
            moment.optimizer.load_state_dict(copy.deepcopy(kept[1]))
        self.charge([batch for batches in trained for batch in batches] + told, price)
        return self.told(alignment=torch.tensor(gains, dtype=torch.float64))

    @staticmethod
    def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        example_losses(model, batch).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _batches(self, turn: int) -> tuple[list[list[Batch]], list[Batch]]:
        bench = self.bench
        wanted = self._steps * self._batch
        trained = [batched(rotating([pool], wanted, turn), self._batch, bench.pad_id) for pool in bench.look_ahead]
        return trained, batched(rotating(bench.targets.steer, self._examples, turn), bench.batch_size, bench.pad_id)

    def _cost(self, trained: list[list[Batch]], told: list[Batch]) -> Cost:
        prices = self.bench.prices

        def both(work: Work) -> float:
            return prices.forward(work) + prices.backward(work)

        steps = cost_of([batch for batches in trained for batch in batches], both)
        return steps + cost_of(told, prices.forward).times(len(trained) + 1)

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of all rounds."""
        return sum((self._cost(*self._batches(turn)) for turn in range(len(self._rounds))), Cost())

    def state_dict(self) -> dict[str, Any]:
        """Return how many rounds are done."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._done = state["done"]


class Probes(Mixture):
    """Softmax of the probed gains in units of their spread over sources, the latest round's joined with those before.

    That is the minimum over the simplex of the predicted mean loss and a price for each nat of KL to the uniform mixture, as
    large as the spread over ``sharpness``.

    Attributes:
        rounds: Shares of the budget at which sources are probed.
        steps: Optimizer steps of a probe.
        batch: Examples a step.
        examples: Of each target that a probe is measured on.
        sharpness: What the gains are multiplied by.
        memory: What a round keeps of the ones before.
        floor: Share of the draws spread evenly.
    """

    plain: ClassVar[bool] = False

    rounds: tuple[float, ...] = (0.05, 0.15, 0.4)
    steps: int = Field(5, ge=1)
    batch: int = Field(16, ge=1)
    examples: int = Field(64, ge=1)
    sharpness: float = Field(2.0, gt=0)
    memory: float = Field(0.5, ge=0, le=1)
    floor: float = Field(0.1, ge=0, lt=1)

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for the probes."""
        return (ProbedGains(self.rounds, self.steps, self.batch, self.examples),)

    def init(self, tasks: TaskSizes) -> State:
        """Return gains of nothing, (T,)."""
        return {"gains": torch.zeros(len(tasks.names), dtype=torch.float64)}

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,)."""
        p = torch.softmax(self.sharpness * state["gains"], 0)
        return (1 - self.floor) * p + self.floor / len(p)

    def update(self, state: State, feedback: Feedback) -> State:
        """Join the gains of a round with those before."""
        if feedback.alignment is None:
            return state
        gains = feedback.alignment - feedback.alignment.mean()
        gains = gains / gains.std().clamp(min=1e-12)
        return {
            "gains": gains if not state["gains"].any() else self.memory * state["gains"] + (1 - self.memory) * gains
        }
