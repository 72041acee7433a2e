"""What every signal is: something a model can tell about data, which says what it costs, measures, and keeps its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from apportion._ranks import summed
from apportion.budget import Account
from apportion.budget.prices import Cost, Work
from apportion.models._kind import Reading
from apportion.signals._records import AnchorsAsked, Asking, Bench, Draw, Feedback, Moment, Outlook, Seen
from apportion.tasks.batches import Batch

Weigh = Callable[[Seen], Tensor]


class Signal:
    """Something a model can tell about data, while it trains or before.

    A method makes it with its settings and hands it out in ``needs()``; the run attaches it to a bench, asks for its price,
    and tells it of every step. What it measures it charges to ``account`` itself.

    Attributes:
        reads: What of a model it reads; a kind of model says what it gives.
        account: Where its measurements are charged.
        instead: What a recipe can set where a model does not give what it reads; empty where nothing does the same.
    """

    reads: ClassVar[Reading]
    instead: ClassVar[str] = ""
    account: ClassVar[Account] = "meta"
    bench: Bench

    @property
    def anchors(self) -> AnchorsAsked | None:
        """The examples to compare with, which the bench then holds; None for a signal that compares with nothing."""
        return None

    def attach(self, bench: Bench) -> Self:
        """Make ready to measure and to be priced; returns the signal.

        Raises:
            ApportionError: The data does not allow the measurement.
        """
        self.bench = bench
        return self

    def check(self, shapes: nn.Module, optim: str, packed: bool) -> None:
        """Refuse what cannot be measured, before anything is spent.

        Args:
            shapes: The model on the meta device.
            optim: The optimizer, as ``training.optim`` names it.
            packed: Whether several examples share a row.

        Raises:
            ApportionError: As said.
        """

    def load(self) -> None:
        """Load what takes long and may fail, before anything of the run is written.

        Raises:
            ApportionError: It does not load.
        """

    def opening(self) -> float:
        """Return the FLOPs that have to be spent before the first step."""
        return 0.0

    def step_price(self, work: Work) -> float:
        """Return the FLOPs that a training step over ``work`` costs more; 0 for one that is measured apart from steps."""
        return 0.0

    def price(self, outlook: Outlook) -> Cost:
        """Return what is charged to ``account`` over a whole run."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: plain numbers, lists and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ApportionError: What is measured with is not what the run began with.
        """

    def charge(self, batches: Sequence[Batch], flops: float) -> None:
        """Charge FLOPs and the tokens of the batches, which all ranks name alike."""
        self.bench.allowance.ledger.charge(
            self.account,
            supervised=sum(b.supervised for b in batches),
            processed=sum(b.processed for b in batches),
            padded=sum(b.padded for b in batches),
            flops=flops,
        )


class TaskSignal(Signal):
    """A signal for mixtures: what the model tells about tasks and targets."""

    def before_step(self, moment: Moment, asking: Asking) -> Feedback | None:
        """Measure, if that is due before the step is drawn."""
        return None

    def during(self, model: nn.Module, batch: Batch, lr: float) -> AbstractContextManager[None]:
        """Wrap one micro-batch's forward and backward."""
        return nullcontext()

    def rescale(self, factor: Tensor) -> None:
        """Take note that this step's gradient was scaled after its backward passes."""

    def after_step(self) -> Feedback | None:
        """Return what the step itself told."""
        return None

    def told(self, losses: Tensor | None = None, targets: Tensor | None = None, **more: Tensor) -> Feedback:
        """Return feedback of now, with the targets' losses as the tasks' where they are one and the same, and back."""
        if self.bench.targets.are_tasks:
            losses = targets = losses if targets is None else targets
        return Feedback(self.bench.allowance.ledger.progress, losses, targets, **more)


class ExampleSignal(Signal):
    """A signal for weights: what the model tells about the examples of a step. ``weigh`` turns what is seen into weights."""

    def before_step(self, moment: Moment, weigh: Weigh) -> None:
        """Measure, if that is due before the step is drawn."""

    def known(
        self, weigh: Weigh, model: nn.Module, batches: Sequence[Batch], draws: Sequence[Sequence[Draw]], step: int
    ) -> Sequence[Tensor] | None:
        """Return the weights of each micro-batch's examples before the step trains on them; None if they come with it.

        Args:
            weigh: The method.
            model: The model.
            batches: This rank's micro-batches, without those of no example.
            draws: Their examples.
            step: The optimizer step, from 0.
        """
        return None

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Wrap a micro-batch's forward pass; what it shows is added to the yielded list."""
        yield []

    def within(self, weigh: Weigh, batch: Batch, losses: Tensor, watched: list[Tensor]) -> Tensor:
        """Return the weights of a micro-batch's examples, (B,), whose losses (B,) and states have just been computed."""
        raise NotImplementedError

    def charge_parts(self, mine: Sequence[Batch]) -> None:
        """Charge a forward pass over the batches that the ranks have each taken."""
        counts = torch.tensor([(b.supervised, b.processed, b.padded) for b in mine], dtype=torch.int64)
        supervised, processed, padded = summed(counts.reshape(-1, 3).sum(0)).tolist()
        price = sum(self.bench.prices.forward(batch.work) for batch in mine)
        flops = float(summed(torch.tensor(price, dtype=torch.float64)))
        self.bench.allowance.ledger.charge(
            self.account, supervised=supervised, processed=processed, padded=padded, flops=flops
        )


def cost_of(batches: Sequence[Batch], price: Callable[[Work], float]) -> Cost:
    """Return what one pass over the batches is expected to cost, ``price`` saying what of each."""
    return Cost(
        float(sum(b.supervised for b in batches)),
        float(sum(b.processed for b in batches)),
        float(sum(price(b.work) for b in batches)),
    )
