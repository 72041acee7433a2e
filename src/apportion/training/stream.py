"""From a mixture to batches: draw, fit into what is left of the budget, pad, charge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from apportion.budget import Ledger
from apportion.signals.batches import Batch, collate
from apportion.tasks import EncodedCollection
from apportion.training.allowance import Allowance
from apportion.training.sampler import TaskSampler

Draw = tuple[int, int]


@dataclass(frozen=True)
class StepBatches:
    """One optimizer step: exactly as many micro-batches as are accumulated, None for an empty one, empty ones first."""

    batches: list[Batch | None]
    examples: int


class Stream:
    """Draws optimizer steps until the budget is spent; never a token more.

    Args:
        collection: The encoded tasks; their train splits are drawn from.
        sampler: Draws (task, example) pairs and remembers what was drawn.
        ledger: Charged with every step (account `train`) as it is collated.
        allowance: What may still be spent.
        step_flops: FLOPs of training on (tokens, squares), steering's share of the step included.
        train_flops: The part of it that is charged to `train`.
        micro_batch: Examples in a micro-batch.
        accumulation: Micro-batches in a step.
        pad_id: Padding token.
    """

    def __init__(  # noqa: PLR0913 - the joint where data, draws and budget meet
        self,
        collection: EncodedCollection,
        sampler: TaskSampler,
        ledger: Ledger,
        allowance: Allowance,
        *,
        step_flops: Callable[[int, int], float],
        train_flops: Callable[[int, int], float],
        micro_batch: int,
        accumulation: int,
        pad_id: int,
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
        self._allowance = allowance
        self.finished = False

    def next_step(self, p: np.ndarray) -> StepBatches | None:
        """Draw the next step from ``p`` and charge it; None when nothing more fits.

        The step that would overshoot is trimmed to the draws that fit, in their order, and ends the stream.
        """
        if self.finished:
            return None
        draws = self.sampler.draw(p, self._micro_batch * self._accumulation)
        fitting = self._fitting(draws)
        if len(fitting) < len(draws):
            self.sampler.put_back(draws[len(fitting) :])
            self.finished = True
        if not fitting:
            return None
        batches = self._collate(fitting)
        for batch in batches:
            if batch is not None:
                self._ledger.charge(
                    "train",
                    supervised=batch.supervised,
                    processed=batch.processed,
                    padded=batch.padded,
                    flops=self._train_flops(batch.processed, batch.squares),
                )
        self.finished = self.finished or self._allowance.left <= 0
        return StepBatches(batches, len(fitting))

    def _price(self, draw: Draw) -> float:
        task, index = draw
        unit = self._ledger.budget.unit
        if unit == "supervised":
            return int(self._splits[task].supervised[index])
        length = int(self._splits[task].processed[index])
        return length if unit == "processed" else self._step_flops(length, length**2)

    def _fitting(self, draws: list[Draw]) -> list[Draw]:
        left = self._allowance.left
        for count, draw in enumerate(draws):
            left -= self._price(draw)
            if left < 0:
                return draws[:count]
        return draws

    def _collate(self, draws: list[Draw]) -> list[Batch | None]:
        # Examples of like length share a micro-batch: less padding, same step.
        ordered = sorted(draws, key=lambda d: int(self._splits[d[0]].processed[d[1]]))
        parts = np.array_split(np.arange(len(ordered)), self._accumulation)
        batches: list[Batch | None] = []
        for part in parts:
            chosen = [ordered[i] for i in part]
            examples = [self._splits[task].example(index) for task, index in chosen]
            batches.append(collate(examples, [task for task, _ in chosen], self._pad_id) if chosen else None)
        return sorted(batches, key=lambda batch: batch is not None)
