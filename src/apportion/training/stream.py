"""From a mixture to batches: draw, fit into what is left of the budget, pad, charge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from apportion._ranks import part_of, world
from apportion.budget import Ledger
from apportion.budget.allowance import Allowance
from apportion.budget.prices import Work
from apportion.tasks import EncodedCollection
from apportion.tasks.batches import Batch, collate, pack, work_of
from apportion.training.sampler import TaskSampler

Draw = tuple[int, int]


@dataclass(frozen=True)
class StepBatches:
    """This rank's part of an optimizer step: exactly as many micro-batches as are accumulated.

    None stands for an empty one, and empty ones come first; the last is a batch, of padding alone where the step has
    nothing for this rank, because all ranks sum their gradients in it. ``draws`` are each micro-batch's examples as
    (task, index in its train split), in the order of its examples. ``examples`` counts those of the step, on all ranks.
    """

    batches: list[Batch | None]
    draws: list[list[Draw]]
    examples: int


class Stream:
    """Draws optimizer steps until the budget is spent; never a token more.

    Every rank draws and charges the whole step, from the same seed, and takes its part of the micro-batches.

    Args:
        collection: The encoded tasks; their train splits are drawn from.
        sampler: Draws (task, example) pairs and remembers what was drawn.
        ledger: Charged with every step (account `train`) as it is collated.
        allowance: What may still be spent.
        step_flops: FLOPs of training, steering's share of the step included.
        train_flops: The part of it that is charged to `train`.
        micro_batch: Examples in a micro-batch.
        accumulation: Micro-batches in a step.
        pad_id: Padding token.
        row_length: Tokens of a row that several examples share; None gives each example a row of its own.
    """

    def __init__(  # noqa: PLR0913 - the joint where data, draws and budget meet
        self,
        collection: EncodedCollection,
        sampler: TaskSampler,
        ledger: Ledger,
        allowance: Allowance,
        *,
        step_flops: Callable[[Work], float],
        train_flops: Callable[[Work], float],
        micro_batch: int,
        accumulation: int,
        pad_id: int,
        row_length: int | None = None,
    ) -> None:
        self.fingerprint = collection.fingerprint
        self._splits = [task.train for task in collection.tasks]
        self.sampler = sampler
        self._ledger = ledger
        self._step_flops = step_flops
        self._train_flops = train_flops
        self._micro_batch = micro_batch
        self._accumulation = accumulation
        self._pad_id = pad_id
        self._row_length = row_length
        self._allowance = allowance
        self.finished = False

    @property
    def packs(self) -> bool:
        """Whether several examples share a row."""
        return self._row_length is not None

    def next_step(self, p: np.ndarray) -> StepBatches | None:
        """Draw the next step from ``p`` and charge it; None when nothing more fits.

        The step that would overshoot is trimmed to the draws that fit, in their order, and ends the stream.
        """
        if self.finished:
            return None
        draws = self.sampler.draw(p, self._micro_batch * self._accumulation * world())
        fitting = self._fitting(draws)
        if len(fitting) < len(draws):
            self.sampler.put_back(draws[len(fitting) :])
            self.finished = True
        if not fitting:
            return None
        batches, chosen = self._collate(fitting)
        for batch in batches:
            if batch is not None:
                self._ledger.charge(
                    "train",
                    supervised=batch.supervised,
                    processed=batch.processed,
                    padded=batch.padded,
                    flops=self._train_flops(batch.work),
                )
        self.finished = self.finished or self._allowance.left <= 0
        return StepBatches(list(part_of(batches)), list(part_of(chosen)), len(fitting))

    def _price(self, draw: Draw) -> float:
        task, index = draw
        unit = self._ledger.budget.unit
        if unit == "supervised":
            return int(self._splits[task].supervised[index])
        if unit == "processed":
            return int(self._splits[task].processed[index])
        return self._step_flops(work_of([self._splits[task].example(index)], [task]))

    def _fitting(self, draws: list[Draw]) -> list[Draw]:
        left = self._allowance.left
        for count, draw in enumerate(draws):
            left -= self._price(draw)
            if left < 0:
                return draws[:count]
        return draws

    def _collate(self, draws: list[Draw]) -> tuple[list[Batch | None], list[list[Draw]]]:
        """Return the step's micro-batches, those of all ranks in turns, and the draws of each."""
        rows = self._rows(draws)
        chosen: list[list[Draw]] = []
        batches: list[Batch | None] = []
        parts = np.array_split(np.arange(len(rows)), self._accumulation * world())
        for part in sorted(parts, key=lambda part: len(part) > 0):
            members = [rows[i] for i in part]
            chosen.append([draws[k] for row in members for k in row])
            examples = [self._splits[task].example(index) for task, index in chosen[-1]]
            tasks = [task for task, _ in chosen[-1]]
            layout = None if self._row_length is None else _renumbered(members)
            batches.append(collate(examples, tasks, self._pad_id, layout) if len(part) else None)
        for last in range(len(batches) - world(), len(batches)):
            if batches[last] is None:
                batches[last] = collate([], [], self._pad_id, [])
        return batches, chosen

    def _rows(self, draws: list[Draw]) -> list[list[int]]:
        """Return the draws of each row, rows of like length beside each other: they will share a micro-batch."""
        lengths = [int(self._splits[task].processed[index]) for task, index in draws]
        if self._row_length is not None:
            return pack(lengths, self._row_length)
        return [[k] for k in sorted(range(len(draws)), key=lambda k: lengths[k])]


def _renumbered(rows: list[list[int]]) -> list[list[int]]:
    """Return rows of the same sizes that count their members through, from 0."""
    numbers = iter(range(sum(map(len, rows))))
    return [[next(numbers) for _ in row] for row in rows]
