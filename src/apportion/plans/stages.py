"""What a run is made of: stages that are checked, priced and run one after the other, each resumed by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from apportion.budget import Account, Ledger
from apportion.budget.prices import Cost
from apportion.models import Child
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


class Priced(Protocol):
    """A run that was checked in full."""

    def price(self) -> dict[Account, Cost]:
        """Return what it is expected to spend, by account."""
        ...


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


class ChildRuns(Stage):
    """Runs that this one needs: ordinary runs in folders of their own, all that they spend charged to one account.

    Args:
        name: What they are.
        children: The runs.
        account: Where they are charged.
        staged: Checks a recipe for a folder, and returns its run, of which no weights are loaded.
        run: Runs a recipe in a folder.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[Child],
        account: Account,
        *,
        staged: Callable[[Mapping[str, Any], Path], Priced],
        run: Callable[[Mapping[str, Any], Path], object],
    ) -> None:
        self.name, self._children, self._account = name, list(children), account
        self._staged, self._run = cache(lambda k: staged(children[k].values, children[k].folder)), run

    @property
    def finished(self) -> bool:
        """Whether each child is."""
        return all(_is_finished(child) for child in self._children)

    def check(self, ledger: Ledger) -> None:
        """Check every child that is still to be run."""
        for k, child in enumerate(self._children):
            if not _is_finished(child):
                self._staged(k)

    def price(self, ledger: Ledger) -> Costs:
        """Return what the finished ones spent, and what the others are priced at as the runs they are."""
        total = Cost()
        for k, child in enumerate(self._children):
            total += _spent(child) if _is_finished(child) else sum(self._staged(k).price().values(), Cost())
        return {self._account: total}

    def run(self, ledger: Ledger, folder: RunFolder | None, show: Show | None) -> None:
        """Run the children that are not finished, and charge all of them."""
        for child in self._children:
            if not _is_finished(child):
                self._run(child.values, child.folder)
            accounts = _accounts(child)
            supervised, processed, padded = (
                sum(int(account[column]) for account in accounts) for column in ("supervised", "processed", "padded")
            )
            flops = sum(float(account["flops"]) for account in accounts)
            ledger.charge(self._account, supervised=supervised, processed=processed, padded=padded, flops=flops)


def _is_finished(child: Child) -> bool:
    return (child.folder / "summary.json").exists()


def _accounts(child: Child) -> list[dict[str, Any]]:
    return list(json.loads((child.folder / "ledger.json").read_text("utf-8"))["accounts"].values())


def _spent(child: Child) -> Cost:
    accounts = _accounts(child)
    return Cost(*(float(sum(account[key] for account in accounts)) for key in ("supervised", "processed", "flops")))
