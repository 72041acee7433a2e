"""What signals measure with, what they are told, and what they hand back: plain records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from apportion.budget.allowance import Allowance
from apportion.budget.prices import Cost, Prices
from apportion.objectives._objective import BoundObjective
from apportion.tasks import EncodedCollection
from apportion.tasks.targets import Targets
from apportion.tasks.validation import Picked

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
    objective's gradient (through the optimizer's preconditioner). Where it is read example by example, ``drawn`` (T,):
    how many of each task's were read, and ``squares`` (T,): the sum of the squares of what each adds to ``alignment``.
    ``gains`` (T,): what some steps on each task alone took off the objective; NaN for a task that was not tried.
    ``train_losses`` (T,): the mean loss over the supervised tokens that each task gave to the last step; NaN for a task
    that gave none.
    """

    progress: float
    losses: Tensor | None = None
    target_losses: Tensor | None = None
    alignment: Tensor | None = None
    drawn: Tensor | None = None
    squares: Tensor | None = None
    gains: Tensor | None = None
    train_losses: Tensor | None = None


class Texts(Protocol):
    """Token ids of texts, one array each: counted, and gone through as often as needed. A list is one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class Seen:
    """What a weighting is told of N examples; a field is empty where its signal does not measure it.

    ``losses`` (N,). ``embeddings`` (N, d) and ``anchor`` (d,), the mean of the anchors' embeddings. ``texts``: token ids of
    each example, and ``anchor_texts`` of each anchor. ``tasks`` (N,), the index of each example's task, and ``shares``
    (T,), a distribution over the tasks.
    """

    losses: Tensor | None = None
    embeddings: Tensor | None = None
    anchor: Tensor | None = None
    texts: Texts = ()
    anchor_texts: Sequence[np.ndarray] = ()
    tasks: Tensor | None = None
    shares: Tensor | None = None
