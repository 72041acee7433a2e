"""Fixed: shares given by name, by hand or by an earlier run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import field_validator
from torch import Tensor

from apportion._errors import ApportionError, nearest
from apportion.mixtures._mixture import Mixture, State, TaskSizes

ROUNDING = 1e-6
# Shares rounded to two digits sum to one within this.
TOLERANCE = 0.01


def fixed(shares: Mapping[str, float], names: Sequence[str]) -> Tensor:
    """Return the shares in the order of ``names``, (T,), rounded off to sum to one.

    Raises:
        ApportionError: A share for no task, or a task without a share.
    """
    for name in shares:
        if name not in names:
            raise ApportionError(f"'mixture.shares.{name}' is no task{nearest(name, names)}.")
    for name in names:
        if name not in shares:
            raise ApportionError(f"'mixture.shares.{name}' is missing: give every task a share, 0 to leave it out.")
    p = torch.tensor([shares[name] for name in names], dtype=torch.float64)
    return p / p.sum()


class Fixed(Mixture):
    """A mixture given by name; a share of 0 leaves a task out.

    What it optimises: nothing; it replays what was found by hand, in a paper, or by another run.
    Shapes: T tasks; state holds p, (T,).
    Cost: none.

    Attributes:
        shares: Task name to share; names every task once and sums to one; within 1 % of that it is rescaled, which is
            a finding of the run.
    """

    shares: dict[str, float]

    @field_validator("shares")
    @classmethod
    def _distribution(cls, shares: dict[str, float]) -> dict[str, float]:
        for name, share in shares.items():
            if not 0 <= share <= 1 + ROUNDING:  # NaN too
                raise ApportionError(f"'mixture.shares.{name}' is {share}: a share must lie between 0 and 1.")
        total = math.fsum(shares.values())
        if abs(total - 1) > TOLERANCE + ROUNDING:
            raise ApportionError(f"'mixture.shares' sums to {total:.6g}: shares must sum to 1, within 1 %.")
        return shares

    def findings(self) -> tuple[str, ...]:
        """Say so where the shares were rescaled."""
        total = math.fsum(self.shares.values())
        return () if abs(total - 1) <= ROUNDING else (f"'mixture.shares' sums to {total:.6g}: rescaled to sum to 1.",)

    def init(self, tasks: TaskSizes) -> State:
        """Return p.

        Raises:
            ApportionError: The shares do not name every task exactly once.
        """
        return {"p": fixed(self.shares, tasks.names)}
