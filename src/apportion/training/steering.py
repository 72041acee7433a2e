"""Measures what a mixture asks for, charges it, and moves the mixture's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from apportion._ranks import rank, summed, world
from apportion.budget import Ledger
from apportion.budget.allowance import Allowance
from apportion.budget.prices import Prices
from apportion.mixtures._mixture import Feedback, GradientGuided, LossGuided, Mixture, State
from apportion.signals import meta_gradient
from apportion.signals.in_run import InRunRead, check_readable
from apportion.signals.inner_step import AdamStep, InnerStep, SgdStep, check_followed, of_optimizer
from apportion.signals.losses import task_losses
from apportion.tasks.batches import Batch
from apportion.tasks.validation import Picked, batched, rotating


class Steering:
    """Feeds one mixture while it trains; a mixture that needs nothing costs nothing.

    Args:
        mixture: The method.
        state: Its starting state.
        pool: Per task, the validation examples it may steer by.
        train_pool: Per task, the training examples that `forward` and `unrolled` look ahead with.
        allowance: What may still be spent.
        ledger: Everything measured here is charged to its `meta` account.
        flops: Prices of the model's passes.
        batch_size: Examples in a measuring batch.
        pad_id: Padding token.
    """

    def __init__(  # noqa: PLR0913 - what a measurement needs
        self,
        mixture: Mixture,
        state: State,
        *,
        pool: Sequence[Sequence[Picked]],
        train_pool: Sequence[Sequence[Picked]],
        allowance: Allowance,
        ledger: Ledger,
        flops: Prices,
        batch_size: int,
        pad_id: int,
    ) -> None:
        self.mixture = mixture
        self.state = state
        self._pool = pool
        self._train_pool = train_pool
        self._allowance = allowance
        self._ledger = ledger
        self._flops = flops
        self._batch_size = batch_size
        self._pad_id = pad_id
        self._turn = 0
        self._due: list[Batch] = []
        self._next_losses = 0
        self._measured = 0.0
        self._direction: dict[str, Tensor] = {}
        self._reader: InRunRead | None = None
        self._read: list[tuple[Tensor, Tensor]] = []
        self._tokens_read = 0
        self._age = 0

    @property
    def p(self) -> Tensor:
        """The mixture now, (T,) float64."""
        return self.mixture.proportions(self.state)

    @property
    def read_in_step(self) -> bool:
        """Whether training steps carry the in-run read, whose price they then pay."""
        return isinstance(self.mixture, GradientGuided) and self.mixture.estimator == "in_run"

    def check(self, shapes: nn.Module, optim: str, packed: bool) -> None:
        """Refuse what cannot be steered, before anything is spent.

        Args:
            shapes: The model on the meta device.
            optim: The optimizer, as ``training.optim`` names it.
            packed: Whether several examples share a row.

        Raises:
            ApportionError: An optimizer whose step is not known, or a model that the estimator cannot read.
        """
        mixture = self.mixture
        if not isinstance(mixture, GradientGuided):
            return
        if mixture.looks_through_optimizer:
            check_followed(optim)
        if mixture.estimator == "in_run":
            check_readable(shapes, packed)

    def prepare(self, model: nn.Module, step: int, optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Measure what is due before optimizer step ``step`` (from 0) is drawn."""
        mixture = self.mixture
        if isinstance(mixture, LossGuided) and step >= self._next_losses:
            self._measure_losses(mixture, model, step)
        # From the second step on: before the first one Adam has no moments to see the direction through.
        elif isinstance(mixture, GradientGuided) and step >= 1 and (step - 1) % mixture.refresh == 0:
            self._refresh(mixture, model, optimizer, lr)

    @contextmanager
    def reading(self, model: nn.Module, batch: Batch, lr: float) -> Iterator[None]:
        """Wrap one micro-batch's forward and backward; collects its alignment where the estimator is `in_run`."""
        if not self._reads_now() or not len(batch):
            yield
            return
        reader = self._reader_of(model)
        with reader.reading(batch, next(model.parameters()).device) as scores:
            yield
        # Left on the device until the step is over: reading it here would wait for the backward pass.
        # The loss is as many times too large as there are ranks, whose gradients are averaged.
        self._read.append((batch.tasks, lr * scores / world()))
        self._tokens_read += batch.processed

    def rescale(self, factor: Tensor) -> None:
        """Scale what this step's micro-batches read, as its gradient was scaled after their backward passes."""
        self._read = [(tasks, scores * factor) for tasks, scores in self._read]

    def after_step(self) -> None:
        """Move the mixture after an optimizer step, where the step measured something."""
        if self._reads_now():
            alignment = torch.zeros(len(self._pool), dtype=torch.float64)
            for tasks, scores in self._read:
                alignment.index_add_(0, tasks, scores.double().cpu())
            tokens = int(summed(torch.tensor(self._tokens_read)))
            self._read.clear()
            self._tokens_read = 0
            self._charge([], self._flops.in_run_read(tokens))
            self._update(alignment=summed(alignment))
        self._age += 1

    def _reads_now(self) -> bool:
        mixture = self.mixture
        return isinstance(mixture, GradientGuided) and bool(self._direction) and mixture.reads_at(self._age)

    def _update(self, losses: Tensor | None = None, alignment: Tensor | None = None) -> None:
        feedback = Feedback(self._ledger.progress, losses, alignment)
        self.state = self.mixture.update(self.state, feedback)

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn - 1

    def _batches(self, count: int) -> list[Batch]:
        return batched(rotating(self._pool, count, self._next_turn()), self._batch_size, self._pad_id)

    def _measure_losses(self, mixture: LossGuided, model: nn.Module, step: int) -> None:
        """Measure each task's loss, unless training has not yet cost enough for it: then it stays due."""
        if not self._due:
            self._due = self._batches(mixture.examples_per_task)
        price = sum(self._flops.forward(b.work) for b in self._due)
        within = self._measured + price <= mixture.max_cost * self._ledger.spent("train").flops
        if not within or not self._allowance.affords(price):
            return
        losses = task_losses(model, self._due, len(self._pool), next(model.parameters()).device)
        self._charge(self._due, price)
        self._update(losses=losses)
        self._measured += price
        self._next_losses = step + mixture.refresh
        self._due = []

    def _refresh(self, mixture: GradientGuided, model: nn.Module, optimizer: torch.optim.Optimizer, lr: float) -> None:
        inner: InnerStep = SgdStep(lr)
        if mixture.looks_through_optimizer:
            inner = of_optimizer(optimizer, {p: n for n, p in model.named_parameters()}, lr)
        if mixture.estimator == "in_run":
            self._take_direction(mixture, model, inner)
        else:
            self._look_ahead(mixture, model, inner)

    def _take_direction(self, mixture: GradientGuided, model: nn.Module, inner: InnerStep) -> None:
        batches = self._batches(mixture.examples_per_task)
        price = sum(self._gradient(b) for b in batches)
        if len(batches) > 1:  # the tasks' weights in the objective take a forward pass of their own
            price += sum(self._flops.forward(b.work) for b in batches)
        if not self._allowance.affords(price):
            return
        device = next(model.parameters()).device
        u, losses = meta_gradient.direction(
            model, [b.to(device) for b in batches], len(self._pool), mixture.objective(self.state)
        )
        self._charge(batches, price)
        if isinstance(inner, AdamStep):
            u = {name: value * inner.preconditioner(name, value) for name, value in u.items()}
        for name, old in self._direction.items():
            u[name].lerp_(old, mixture.momentum)
        self._direction, self._age = u, 0
        self._reader_of(model).set_direction(u)
        self._update(losses=losses)

    def _look_ahead(self, mixture: GradientGuided, model: nn.Module, inner: InnerStep) -> None:
        """Estimate by `forward` or `unrolled`: one training batch of every task, one step ahead."""
        turn, count = self._next_turn(), mixture.examples_per_task
        train, validation = (
            batched(rotating(pool, count, turn), count * len(pool), self._pad_id)[0]
            for pool in (self._train_pool, self._pool)
        )
        # Differentiating the backward again costs about as much as the forward and backward themselves.
        literal = mixture.estimator == "unrolled"
        again = self._gradient(train) if literal else self._flops.jvp(train.work)
        price = again + sum(self._gradient(b) for b in (train, validation))
        price += self._flops.forward(validation.work)
        if not self._allowance.affords(price):
            return
        device, rates = next(model.parameters()).device, mixture.rates(self.state)
        estimate = meta_gradient.unrolled if literal else meta_gradient.forward
        objective, slope = mixture.objective(self.state), torch.zeros_like(rates)
        if rank() == 0:  # a single batch, which is not shared out
            slope = estimate(model, train.to(device), validation.to(device), rates.to(device), inner, objective)
        losses = task_losses(model, [validation], len(self._pool), device)
        self._charge([train, validation], price)
        self._update(losses, alignment=rates * summed(slope.double().cpu()))

    def _gradient(self, batch: Batch) -> float:
        """Price the gradient of losses that are measured, without what training adds to them."""
        return self._flops.forward(batch.work) + self._flops.backward(batch.work)

    def _charge(self, batches: Sequence[Batch], flops: float) -> None:
        self._ledger.charge(
            "meta",
            supervised=sum(b.supervised for b in batches),
            processed=sum(b.processed for b in batches),
            padded=sum(b.padded for b in batches),
            flops=flops,
        )

    def _reader_of(self, model: nn.Module) -> InRunRead:
        if self._reader is None:
            self._reader = InRunRead(model)
            self._reader.set_direction(self._direction)
        return self._reader

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs, the direction u included."""
        return {
            "mixture": dict(self.state),
            # Batches that are due and not measured yet are made again, of the same examples.
            "turn": self._turn - bool(self._due),
            "next_losses": self._next_losses,
            "measured": self._measured,
            "direction": dict(self._direction),
            "age": self._age,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self.state = state["mixture"]
        self._turn = state["turn"]
        self._next_losses = state["next_losses"]
        self._measured = state["measured"]
        self._due = []
        self._age = state["age"]
        self._direction = {name: value.to(device) for name, value in state["direction"].items()}
        self._reader = None
