"""What every selection is: a frozen config that scores a pool of examples toward targets and says how many it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from apportion._config import Config, unknown_key
from apportion._errors import ApportionError
from apportion.budget import Budget
from apportion.signals._pool import PoolSignal, Shown

_KEYS = ("examples", "supervised", "processed")
Limit = str | int | float | dict[str, str | int | float]


class Selection(Config):
    """Which train examples are kept.

    Attributes:
        plain: True if nothing is measured for it, so that it is a baseline; a run's summary says so to reports.
        keeps_all: Whether every example is kept, so that there is nothing to select.
    """

    plain: ClassVar[bool] = True
    keeps_all: ClassVar[bool] = False

    @property
    def scored(self) -> float:
        """The share of the pool's examples that is scored."""
        return 1.0

    @property
    def looks_at(self) -> int | None:
        """How many of the targets' steering examples scores go by; None for all."""
        return None

    @property
    def charges(self) -> bool:
        """Whether what it cost is charged."""
        return True

    def given(self) -> Path | None:
        """Return the finished selection to take, where there is one already."""
        return None

    def needs(self) -> tuple[PoolSignal, ...]:
        """Return the signal that the scores follow, made anew, one at most."""
        return ()

    def warm_up(self, recipe: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the recipe of the run whose checkpoints the pool is looked at with; None for the model as it starts.

        Args:
            recipe: The whole recipe, as plain values.
        """
        return None


class Limited(Selection):
    """A selection that scores the pool and keeps the best of it up to a limit.

    Attributes:
        limit: What is kept: a share of the pool's supervised tokens (``20%``), a number of them (``60k``, ``2M processed``)
            or of examples (``{examples: 1000}``, ``{examples: 10%}``). Never a token more.
        pool: Share of the pool's examples that is scored, drawn by the recipe's seed; the rest is not kept.
    """

    limit: Limit = "20%"
    pool: float = Field(1.0, gt=0, le=1)

    @field_validator("limit")
    @classmethod
    def _readable(cls, value: Limit) -> Limit:
        read_limit(value, 10**15, 10**15)  # of how much a share is taken, the data will say
        return value

    @property
    def scored(self) -> float:
        """As ``pool`` says."""
        return self.pool

    def score(self, shown: Shown) -> Tensor:
        """Return how much each example is wanted for each target, (n, V), or for all alike, (n, 1); more is better."""
        raise NotImplementedError

    def blind(self, sizes: Sequence[int], seed: int) -> Tensor:
        """Return the scores of one that needs nothing of the examples, (n, 1), by how many each task has."""
        raise NotImplementedError

    def gathered(self, scores: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return one score an example, (n,), and what the examples are ranked by, (n,): most is first.

        Args:
            scores: Of all examples, (n, V) or (n, 1).
            importance: Of each target, (V,).
        """
        return scores[:, 0], scores[:, 0]


class Targeted(Limited):
    """A selection by likeness to targets.

    Attributes:
        aggregate: Over the targets: the ``mean`` by importance, the ``max``, or ``turns``, in which each target in turn
            takes the example that is best for it.
        anchors: At most this many of the targets' steering examples are compared with, spread evenly over the targets.
    """

    plain: ClassVar[bool] = False

    aggregate: Literal["mean", "max", "turns"] = "mean"
    anchors: int = Field(400, ge=1)

    @property
    def looks_at(self) -> int | None:
        """As ``anchors`` says."""
        return self.anchors

    def gathered(self, scores: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores as `aggregate` says."""
        if self.aggregate == "mean":
            mean = scores.double() @ (importance / importance.sum())
            return mean, mean
        highest = scores.max(1).values.double()
        return highest, highest if self.aggregate == "max" else -in_turns(scores).double()


def in_turns(scores: Tensor) -> Tensor:
    """Return the place of each example, (n,) from 0, where V targets in turn take the one that is best for them.

    Args:
        scores: (n, V). Of equals the one that comes first.
    """
    orders = torch.argsort(scores, dim=0, descending=True, stable=True).T.tolist()
    places = [-1] * len(scores)
    ahead, taken = [0] * len(orders), 0
    while taken < len(places):
        for target, order in enumerate(orders):
            while ahead[target] < len(order) and places[order[ahead[target]]] >= 0:
                ahead[target] += 1
            if ahead[target] < len(order):
                places[order[ahead[target]]] = taken
                taken += 1
    return torch.tensor(places)


def read_limit(limit: Limit, supervised: int, examples: int) -> tuple[str, int]:
    """Return a limit as its unit, ``supervised``, ``processed`` or ``examples``, and the most of it.

    Args:
        limit: As a recipe has it.
        supervised: Supervised tokens of the pool, of which a share is taken.
        examples: Examples of the pool, likewise.

    Raises:
        ApportionError: No limit, or one in FLOPs.
    """
    for key in limit if isinstance(limit, dict) else ():
        if key not in _KEYS:
            raise ApportionError(unknown_key(f"selection.limit.{key}", _KEYS))
    if isinstance(limit, dict) and "examples" in limit:
        if len(limit) > 1:
            raise ApportionError("'selection.limit' is one of examples, supervised and processed, not several.")
        # A budget's words serve for examples too: a number, or a share of them.
        said = str(limit["examples"])
        try:
            read = Budget.parse(said, examples)
        except ApportionError:
            raise ApportionError(
                f"'selection.limit.examples' is {said!r}: write a number of examples or a share of them, such as 10%."
            ) from None
        if read.unit != "supervised" or "supervised" in said:
            raise ApportionError(f"'selection.limit.examples' is {said!r}: examples have no unit.")
        return "examples", int(read.limit)
    try:
        read = Budget.parse(limit, supervised)
    except ApportionError:
        raise ApportionError(
            f"'selection.limit' is {limit!r}: write a share of the pool's supervised tokens ('20%'), a number of them "
            "('60k', '2M processed'), or {examples: 1000}."
        ) from None
    if read.unit == "flops":
        raise ApportionError("'selection.limit' is in tokens or examples: FLOPs are the budget's.")
    return read.unit, int(read.limit)


def within(order: np.ndarray, amounts: np.ndarray, limit: int) -> np.ndarray:
    """Return which examples are kept, (n,) bool: the longest start of ``order`` whose amounts sum to at most ``limit``.

    A larger limit only adds: none that is kept is given up for a shorter one that would still fit.
    """
    kept = np.zeros(len(order), dtype=bool)
    kept[order[: int(np.searchsorted(np.cumsum(amounts[order]), limit, side="right"))]] = True
    return kept
