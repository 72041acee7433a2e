"""The ledger: every pass, wherever it happens, is charged to one account in tokens and FLOPs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from apportion._errors import ApportionError, nearest
from apportion.budget.budget import Budget

Account = Literal["train", "validation", "meta", "proxy", "select", "evaluate", "generate"]
ACCOUNTS: tuple[Account, ...] = get_args(Account)
# Generated tokens are counted apart, by kind.
KINDS = ("thinking", "answer", "inserted")


@dataclass(frozen=True)
class Spent:
    """One account's total.

    ``supervised``: positions with a label; ``processed``: supervised and prompt positions; ``padded``: all positions of
    the batch, padding included, so padded >= processed >= supervised. ``flops`` as in ``models.flops``. ``thinking``,
    ``answer`` and ``inserted`` are generated tokens by kind, of which processed counts all but each request's last.
    """

    supervised: int = 0
    processed: int = 0
    padded: int = 0
    flops: float = 0.0
    thinking: int = 0
    answer: int = 0
    inserted: int = 0

    @property
    def generated(self) -> int:
        """Tokens that were generated, of every kind."""
        return self.thinking + self.answer + self.inserted


class Ledger:
    """What a run has spent, by account, against its budget.

    Strict: a charge names its account and all four amounts, so nothing can be forgotten in silence. Stateful: it is
    saved in every checkpoint, and a resumed run counts on from there exactly.

    Args:
        budget: The budget that ``progress`` and ``remaining`` refer to.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._spent: dict[str, Spent] = {account: Spent() for account in ACCOUNTS}
        self._before: int | float = 0

    def start(self) -> None:
        """Let `progress` count from here: what was spent before training is no part of its schedule.

        Not saved: whoever loads a state says where training started, before or after.
        """
        self._before = self.used

    def charge(
        self, account: Account, *, supervised: int, processed: int, padded: int, flops: float, **kinds: int
    ) -> None:
        """Add one pass, or several, to an account.

        Args:
            account: Its name.
            supervised: Positions with a label.
            processed: Positions without padding.
            padded: All positions.
            flops: FLOPs.
            **kinds: ``thinking``, ``answer`` and ``inserted`` tokens, where text was generated.

        Raises:
            ValueError: An unknown account or kind, a negative or non-finite amount, a token count that is not an int, or
                counts that are not padded >= processed >= supervised. The ledger is left as it was.
        """
        if account not in self._spent:
            raise ValueError(f"Unknown account '{account}'{nearest(account, ACCOUNTS)}.")
        _check(supervised, processed, padded, flops, **kinds)
        before = asdict(self._spent[account])
        amounts = asdict(Spent(supervised, processed, padded, float(flops), **kinds))
        self._spent[account] = Spent(**{key: before[key] + amount for key, amount in amounts.items()})

    def spent(self, account: Account) -> Spent:
        """Return one account's total.

        Raises:
            ValueError: An unknown account.
        """
        if account not in self._spent:
            raise ValueError(f"Unknown account '{account}'{nearest(account, ACCOUNTS)}.")
        return self._spent[account]

    @property
    def total_flops(self) -> float:
        """FLOPs of all accounts together but `evaluate`, which no budget pays: it may be asked for when that is spent."""
        return math.fsum(spent.flops for name, spent in self._spent.items() if name != "evaluate")

    @property
    def used(self) -> int | float:
        """What counts against the budget, in its unit: train tokens, or `total_flops`."""
        match self.budget.unit:
            case "flops":
                return self.total_flops
            case "processed":
                return self._spent["train"].processed
            case "supervised":
                return self._spent["train"].supervised
            case "generated":
                return self._spent["generate"].generated

    @property
    def remaining(self) -> int | float:
        """What may still be spent, in the budget's unit; never below zero."""
        return max(self.budget.limit - self.used, 0)

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]; after `start`, of what was left then."""
        left = self.budget.limit - self._before
        return min((self.used - self._before) / left, 1.0) if left > 0 else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return ``ledger.json`` without its schema number: the budget, and every account, unused ones as zeros."""
        return {
            "budget": asdict(self.budget),
            "accounts": {account: asdict(spent) for account, spent in self._spent.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the ledger as plain numbers, for a checkpoint."""
        return self.as_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ApportionError: The state is of another budget, or is not a ledger's; the ledger is left as it was.
        """
        if set(state) != {"budget", "accounts"} or set(state["accounts"]) != set(ACCOUNTS):
            raise ApportionError("The saved ledger is not one of this version's: start the run in a new folder.")
        if dict(state["budget"]) != asdict(self.budget):
            saved = Budget(**state["budget"])
            raise ApportionError(
                f"The saved run has a budget of {saved}, this one of {self.budget}: "
                "resume with the saved budget, or start the run in a new folder."
            )
        for account in ACCOUNTS:
            try:
                _check(**state["accounts"][account])
            except (TypeError, ValueError) as error:
                raise ApportionError(f"The saved ledger's account '{account}' is damaged: {error}.") from None
        self._spent = {account: Spent(**state["accounts"][account]) for account in ACCOUNTS}


def _check(supervised: int, processed: int, padded: int, flops: float, **kinds: int) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"Unknown kind of token '{kind}'{nearest(kind, KINDS)}")
    for name, tokens in (("supervised", supervised), ("processed", processed), ("padded", padded), *kinds.items()):
        if type(tokens) is not int:  # neither bool nor a numpy scalar: the ledger is written as JSON
            raise ValueError(f"'{name}' must be an int, not {tokens!r}")
        if tokens < 0:
            raise ValueError(f"'{name}' must not be negative, not {tokens!r}")
    if not padded >= processed >= supervised:
        raise ValueError(f"padded {padded} >= processed {processed} >= supervised {supervised} does not hold")
    if isinstance(flops, bool) or not isinstance(flops, int | float) or not math.isfinite(flops) or flops < 0:
        raise ValueError(f"'flops' must be a finite number, zero or more, not {flops!r}")
