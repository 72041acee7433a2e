"""The texts of all train examples, and of anchors, looked at once before training: no model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from apportion.budget.prices import Cost
from apportion.signals._records import Anchors, AnchorsAsked, Bench, Draw, Outlook, Seen
from apportion.signals._signal import ExampleSignal, Weigh
from apportion.signals.anchor_states import check_same
from apportion.tasks import EncodedCollection, EncodedSplit
from apportion.tasks.batches import Batch


class Weighs(Protocol):
    """What turns texts into weights."""

    def __hash__(self) -> int: ...

    def weigh(self, seen: Seen) -> Tensor:
        """Return w, (n,) float32."""
        ...


class PoolTexts(ExampleSignal):
    """Shows ``texts`` of every train example, n of them, and ``anchor_texts``, once a process.

    Args:
        method: Whose weights they are; hashable, for the weights are kept.
        anchors: Which examples the anchors are; None for a method that compares with none.

    Cost: nothing to the ledger; what counting takes before training.
    """

    reads = "texts"

    def __init__(self, method: Weighs, *, anchors: AnchorsAsked | None = None) -> None:
        self._method, self._asked = method, anchors
        self._pool: list[Tensor] = []

    @property
    def anchors(self) -> AnchorsAsked | None:
        """The examples that training examples are compared with."""
        return self._asked

    def attach(self, bench: Bench) -> PoolTexts:
        """Weigh every train example.

        Raises:
            ApportionError: The method cannot tell the examples apart.
        """
        self._pool = _pool_weights(self._method, bench.tasks, bench.anchors)
        return super().attach(bench)

    def price(self, outlook: Outlook) -> Cost:
        """Return nothing."""
        return Cost()

    def known(
        self, weigh: Weigh, model: nn.Module, batches: Sequence[Batch], draws: Sequence[Sequence[Draw]], step: int
    ) -> Sequence[Tensor]:
        """Return the weights of the examples that were drawn."""
        return [torch.tensor([float(self._pool[task][index]) for task, index in drawn]) for drawn in draws]

    def state_dict(self) -> dict[str, Any]:
        """Return what the anchors are."""
        return {"fingerprint": self.bench.anchors.fingerprint}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Check that the anchors are the same.

        Raises:
            ApportionError: They are not.
        """
        check_same(state["fingerprint"], self.bench.anchors.fingerprint)


class _Pool:
    """Token ids of every example of the splits, read one by one: the splits may lie in a file larger than memory."""

    def __init__(self, splits: Sequence[EncodedSplit]) -> None:
        self._splits = splits

    def __len__(self) -> int:
        return sum(map(len, self._splits))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (split.example(i)[0] for split in self._splits for i in range(len(split)))


@lru_cache(maxsize=2)
def _pool_weights(method: Weighs, tasks: EncodedCollection, anchors: Anchors) -> list[Tensor]:
    """Return, per task, the weights of its train examples, (n_i,) float32 each."""
    splits = [task.train for task in tasks.tasks]
    against = [split.example(i)[0] for _, split, i in anchors.picked]
    weights = method.weigh(Seen(texts=_Pool(splits), anchor_texts=against))
    return list(weights.split([len(split) for split in splits]))
