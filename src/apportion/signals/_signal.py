"""What every signal is: something a model can tell about data, which says what it costs, measures, and keeps its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from apportion._ranks import summed
from apportion.budget import Account
from apportion.budget.allowance import Allowance
from apportion.budget.prices import Cost, Prices, Work
from apportion.objectives._objective import BoundObjective
from apportion.tasks import EncodedCollection
from apportion.tasks.batches import Batch
from apportion.tasks.targets import Targets
from apportion.tasks.validation import Picked

Reading = Literal["losses", "gradients", "backward", "states", "texts"]
"""What a signal reads: losses of a forward pass, gradients, training's own backward pass, hidden states, or texts alone."""
Draw = tuple[int, int]
"""A train example as (task, index in its train split)."""


@dataclass(frozen=True)
class AnchorsAsked:
    """Which examples a signal compares with: at most ``count``, of the targets or of ``files``."""

    count: int
    files: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Anchors:
    """The examples, and a digest of the contents of files that they came from, empty where they came from the targets."""

    picked: tuple[Picked, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True)
class Bench:
    """What signals of one run measure with.

    Attributes:
        tasks: The encoded training tasks, T of them.
        targets: What the model should be good at, V targets.
        steer: Per task, the validation examples that methods may see.
        look_ahead: Per task, the training examples that are looked ahead with, in a seeded order.
        anchors: Of a signal that asks for them.
        allowance: What may still be spent; everything measured is charged to its ledger.
        prices: Of the model's passes.
        batch_size: Examples in a measuring batch.
        pad_id: Padding token.
        several: Whether a step is made of several micro-batches.
    """

    tasks: EncodedCollection
    targets: Targets
    steer: Sequence[Sequence[Picked]]
    look_ahead: Sequence[Sequence[Picked]]
    anchors: Anchors
    allowance: Allowance
    prices: Prices
    batch_size: int
    pad_id: int
    several: bool


@dataclass(frozen=True)
class Outlook:
    """What a run is expected to be, which a signal's price follows from: means over its draws.

    Attributes:
        steps: Optimizer steps.
        draws: Examples drawn.
        draw: What one of them costs, FLOPs of its training.
        forward: FLOPs of a forward pass over one of them.
    """

    steps: int
    draws: int
    draw: Cost
    forward: float


@dataclass(frozen=True)
class Moment:
    """Just before an optimizer step: ``step`` counts from 0, ``lr`` is its learning rate."""

    model: nn.Module
    step: int
    optimizer: torch.optim.Optimizer
    lr: float


@dataclass(frozen=True)
class Asking:
    """What a mixture lends a signal of tasks: the objective as it stands, and the rates that examples are drawn at, (T,)."""

    objective: Callable[[], BoundObjective]
    rates: Callable[[], Tensor]


@dataclass(frozen=True)
class Feedback:
    """What a mixture is told during training; a field is None where this update did not measure it.

    ``progress`` is the share of the budget spent, in [0, 1]. ``losses`` (T,): each task's mean loss over supervised
    tokens on the steering part of its validation split. ``target_losses`` (V,): the same of each target; the losses
    themselves where the targets are the tasks. ``alignment`` (T,): s_i, the first-order decrease of the
    objective in one training step that task i's share of the batch accounts for: ``r_i * eta * <g_i, u>`` in
    expectation, r_i being the rate that its examples are drawn at (p_i, where p shares out examples) and u the
    objective's gradient (through the optimizer's preconditioner).
    """

    progress: float
    losses: Tensor | None = None
    target_losses: Tensor | None = None
    alignment: Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """What a weighting is told of N examples; a field is empty where its signal does not measure it.

    ``losses`` (N,). ``embeddings`` (N, d) and ``anchor`` (d,), the mean of the anchors' embeddings. ``texts``: token ids of
    each example, and ``anchor_texts`` of each anchor.
    """

    losses: Tensor | None = None
    embeddings: Tensor | None = None
    anchor: Tensor | None = None
    texts: Sequence[np.ndarray] = ()
    anchor_texts: Sequence[np.ndarray] = ()


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
