"""What a model tells of a whole pool of examples before training: looked at in chunks, each priced, charged and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from apportion._errors import ApportionError
from apportion.budget import Account, Ledger
from apportion.budget.prices import Cost, Prices, Work
from apportion.signals.inner_step import InnerStep
from apportion.tasks import EncodedCollection
from apportion.tasks.batches import Batch
from apportion.tasks.targets import Targets
from apportion.tasks.validation import Picked, batched

CHUNK = 1024


@dataclass(frozen=True)
class Pool:
    """The train examples that are scored.

    Attributes:
        tasks: The encoded tasks, T of them.
        candidates: Per task, which of its train examples, ascending.
    """

    tasks: EncodedCollection
    candidates: Sequence[np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.candidates))

    @property
    def chunks(self) -> Sequence[list[Picked]]:
        """The examples in stretches of one task each, in the collection's order; the same for any number of ranks."""
        return _Chunks(self._parts)

    @cached_property
    def _parts(self) -> list[tuple[int, Any, np.ndarray]]:
        return [
            (at, task.train, rows)
            for at, (task, rows) in enumerate(zip(self.tasks.tasks, self.candidates, strict=True))
        ]

    def cost(self, price: Callable[[Work], float]) -> Cost:
        """Return what one pass over all of it costs, ``price`` saying what in FLOPs."""
        supervised, tokens, pairs = 0.0, 0.0, 0.0
        for _, split, rows in self._parts:
            lengths = split.processed[rows].astype(np.float64)
            supervised += float(split.supervised[rows].sum())
            tokens, pairs = tokens + float(lengths.sum()), pairs + float((lengths**2).sum())
        return Cost(supervised, tokens, price(Work(tokens, pairs)))


class _Chunks(Sequence[list[Picked]]):
    """A pool's chunks, each made when it is asked for: a list of all examples would grow with the pool."""

    def __init__(self, parts: Sequence[tuple[int, Any, np.ndarray]]) -> None:
        self._parts = parts
        self._starts = [(at, start) for at, (_, _, rows) in enumerate(parts) for start in range(0, len(rows), CHUNK)]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, k: Any) -> Any:  # noqa: ANN401 - a number; a Sequence's would take a slice too
        at, start = self._starts[k]
        task, split, rows = self._parts[at]
        return [(task, split, int(i)) for i in rows[start : start + CHUNK]]


@dataclass(frozen=True)
class PoolBench:
    """What a pool is looked at with.

    Attributes:
        pool: The examples.
        targets: What the model should be good at, V targets; methods see their steering halves.
        prices: Of the model's passes.
        trained: How many of its numbers are trained.
        ledger: Everything measured is charged to it.
        batch_size: Examples in a measuring batch.
        pad_id: Padding token.
        decode: Turns an example's token ids into its text.
    """

    pool: Pool
    targets: Targets
    prices: Prices
    trained: int
    ledger: Ledger
    batch_size: int
    pad_id: int
    decode: Callable[[np.ndarray], str]

    def gradient(self, work: Work) -> float:
        """Price a forward and backward pass."""
        return self.prices.forward(work) + self.prices.backward(work)


@dataclass(frozen=True)
class Look:
    """One pass over the pool: with which model, how its optimizer would step, and how much the pass counts.

    Attributes:
        model: On its device, in evaluation mode.
        inner: The optimizer's next step, of a model that was warmed up.
        weight: Of the pass; those of all passes sum to one.
    """

    model: nn.Module
    inner: InnerStep | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Shown:
    """What a selection is told of n examples; a field is empty where its signal does not measure it.

    Attributes:
        losses: Mean loss over supervised tokens, (n,).
        embeddings: Of each example, (n, d), and ``anchors`` of each target, (V, d).
        texts: Token ids of each example, and ``lexicon``, what was counted over pool and targets.
        products: Of each example with each target, (n, V).
    """

    losses: Tensor | None = None
    embeddings: Tensor | None = None
    anchors: Tensor | None = None
    texts: Sequence[np.ndarray] = ()
    lexicon: Lexicon | None = None
    products: Tensor | None = None


@dataclass(frozen=True)
class Lexicon:
    """What is counted over a pool once: sums, which add over parts of it.

    Attributes:
        documents: How many there are.
        tokens: In all of them.
        holding: Documents that hold each term, (terms,).
        asked: Per target, how often each term stands in its examples, their mean, (V, terms).
    """

    documents: int
    tokens: int
    holding: np.ndarray
    asked: np.ndarray


class PoolSignal:
    """Something a model can tell about every example of a pool, before training.

    A selection makes it and hands it out in ``needs()``. It is attached to a bench and asked for its price; then ``survey``
    looks at all texts once, and in each of ``looks`` passes ``begin`` measures the targets and ``show`` a chunk of the pool.
    What it measures it charges to ``account`` itself. Chunks are shown in any order, by any process, and once each.

    Attributes:
        account: Where its measurements are charged.
        looks: Passes over the pool.
    """

    account: ClassVar[Account] = "select"
    looks: int = 1
    bench: PoolBench

    def attach(self, bench: PoolBench) -> Self:
        """Make ready to be priced and to measure; returns the signal."""
        self.bench = bench
        return self

    def check(self, shapes: nn.Module, optim: str) -> None:
        """Refuse what cannot be measured, before anything is spent.

        Args:
            shapes: The model on the meta device.
            optim: The optimizer, as ``training.optim`` names it.

        Raises:
            ApportionError: As said.
        """

    def price(self) -> Cost:
        """Return what is charged to ``account`` over all passes."""
        return Cost()

    def survey(self) -> None:
        """Look at the texts of the pool, once in every process, before the first pass; no model, no charge."""

    def begin(self, look: Look) -> dict[str, Tensor]:
        """Measure the targets for a pass; returns what `resume` needs to do without."""
        return {}

    def resume(self, look: Look, state: dict[str, Tensor]) -> None:
        """Begin a pass again with what `begin` returned, without measuring."""

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Measure the examples of a chunk, and show them in its order."""
        raise NotImplementedError

    def charge(self, batches: Sequence[Batch], flops: float) -> None:
        """Charge FLOPs and the tokens of the batches."""
        self.bench.ledger.charge(
            self.account,
            supervised=sum(b.supervised for b in batches),
            processed=sum(b.processed for b in batches),
            padded=sum(b.padded for b in batches),
            flops=flops,
        )

    def laid_out(self, picked: Sequence[Picked], most: int | None = None) -> tuple[list[Batch], Tensor]:
        """Return examples in batches of like length, and the place among ``picked`` of each, in the batches' order.

        Args:
            picked: The examples.
            most: Of them in a batch, one at least, where that is less than the bench's.
        """
        lengths = [int(split.processed[i]) for _, split, i in picked]
        # As `by_length` orders them: its sort is stable too.
        order = sorted(range(len(picked)), key=lambda k: lengths[k])
        size = self.bench.batch_size if most is None else max(1, min(most, self.bench.batch_size))
        return batched(picked, size, self.bench.pad_id), torch.tensor(order, dtype=torch.int64)

    def target_examples(self) -> list[Picked]:
        """Return the steering examples of all targets, those of a target beside each other."""
        picked = [item for items in self.bench.targets.steer for item in items]
        if not picked:
            raise ApportionError("The targets have no examples to select by.")
        return picked


def means_by_target(values: Tensor, examples: Sequence[Picked], count: int) -> Tensor:
    """Return the mean of each target's rows, (V, ...), of what was measured of `PoolSignal.target_examples`, (n, ...)."""
    of = torch.tensor([target for target, _, _ in examples])
    return torch.stack([values[of == target].mean(0) for target in range(count)])


def in_order(values: Sequence[Tensor], places: Tensor) -> Tensor:
    """Return values that were measured batch by batch, (n, ...), in the order that the examples were given in."""
    together = torch.cat(list(values))
    back = torch.empty_like(places)
    back[places] = torch.arange(len(places))
    return together[back.to(together.device)]
