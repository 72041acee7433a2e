"""What a run is made of: stages that are checked, priced and run one after the other, each resumed by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apportion.budget import Account, Ledger
from apportion.budget.prices import Cost
from apportion.runs import RunFolder
from apportion.training.recorder import Show

Costs = Mapping[Account, Cost]


class Stage:
    """One piece of a run. ``plan`` prices the stages that ``run`` runs, in the same order.

    Attributes:
        name: What it is called.
    """

    name: str

    def check(self, ledger: Ledger) -> None:
        """Find out whatever can be wrong, before anything is written or spent.

        Args:
            ledger: What the stages before are expected to spend.

        Raises:
            ApportionError: Anything wrong.
        """

    def price(self, ledger: Ledger) -> Costs:
        """Return what it is expected to spend, by account; of a finished one, what it spent.

        Args:
            ledger: What the stages before are expected to spend, which a budget in FLOPs does not pay again.
        """
        raise NotImplementedError

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do but to charge what it spent."""
        raise NotImplementedError

    def load(self) -> None:
        """Load what takes long and may fail, still before anything is written.

        Raises:
            ApportionError: It does not load.
        """

    def run(self, ledger: Ledger, folder: RunFolder | None, show: Show | None) -> None:
        """Do what is left to do, and charge the ledger with all that the stage spends, now or before.

        Args:
            ledger: The run's.
            folder: The run's folder, where this process writes it.
            show: Told of every record.

        Raises:
            ApportionError: It cannot be done, or not within the budget.
        """
        raise NotImplementedError


def expect(ledger: Ledger, costs: Costs) -> None:
    """Charge a ledger of expectations with a stage's price."""
    for account, cost in costs.items():
        supervised, processed = round(cost.supervised), round(cost.processed)
        ledger.charge(account, supervised=supervised, processed=processed, padded=processed, flops=cost.flops)


def together(parts: Sequence[Costs]) -> dict[Account, Cost]:
    """Return the sum of what several stages spend, by account."""
    total: dict[Account, Cost] = {}
    for costs in parts:
        total |= {account: total.get(account, Cost()) + cost for account, cost in costs.items()}
    return total
