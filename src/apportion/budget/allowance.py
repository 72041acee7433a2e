"""What may still be spent before the closing validation."""

from __future__ import annotations

from dataclasses import dataclass

from apportion.budget import Ledger


@dataclass(frozen=True)
class Allowance:
    """The budget's remainder, less what the closing validation will cost where the budget is in FLOPs.

    A budget in tokens binds training alone; one in FLOPs binds every account, so a measurement must be affordable.
    """

    ledger: Ledger
    reserve: float

    @property
    def left(self) -> float:
        """Return what training may still spend, in the budget's unit."""
        return self.ledger.remaining - (self.reserve if self.ledger.budget.unit == "flops" else 0)

    def affords(self, flops: float) -> bool:
        """Return whether a measurement of this price fits."""
        return self.ledger.budget.unit != "flops" or flops <= self.left
