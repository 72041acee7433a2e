"""What one served request took: plain numbers that add up, and the meter that counts them while the work is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from apportion.budget.ledger import Account, Ledger
from apportion.budget.prices import Prices, Work

# Fields of which two requests together have the larger one and not the sum.
_PEAKS = ("resident_peak", "side_peak", "host_peak")


@dataclass(frozen=True)
class Served:
    """One request, or several added up.

    Tokens: ``prompt`` positions that went through the model and ``reused`` ones that were found in a cache instead;
    ``thinking``, ``answer`` and ``inserted`` are generated, the last by a processor; ``wasted`` were computed and thrown
    away; ``padded`` counts all positions of all passes. Bytes: ``resident_peak`` and ``side_peak`` (the part that is neither
    keys nor values) on the device, ``resident_steps`` their sum over decode steps, ``host_peak`` elsewhere, ``read`` by
    attention and estimators, ``moved`` between host and device. ``steps``: decode steps. ``flops``: all products, of which
    ``attention_flops`` are attention's. ``queued``, ``prefill``, ``decode``: measured seconds.

    A pass is over what it is given: the last token that is generated is never an input, has no keys, and costs no pass.
    """

    prompt: int = 0
    reused: int = 0
    thinking: int = 0
    answer: int = 0
    inserted: int = 0
    wasted: int = 0
    padded: int = 0
    steps: int = 0
    resident_peak: int = 0
    resident_steps: int = 0
    side_peak: int = 0
    host_peak: int = 0
    read: int = 0
    moved: int = 0
    flops: float = 0.0
    attention_flops: float = 0.0
    queued: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    requests: int = 1

    @property
    def generated(self) -> int:
        """Tokens that were generated, of every kind."""
        return self.thinking + self.answer + self.inserted

    @property
    def tokens(self) -> int:
        """Positions that the model worked on: each request's last generated token is none of them."""
        return self.prompt + self.steps + self.wasted

    def __add__(self, other: Served) -> Served:
        found: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            found[field.name] = max(mine, theirs) if field.name in _PEAKS else mine + theirs
        return Served(**found)


def means(served: Sequence[Served]) -> dict[str, float]:
    """Return the mean of each field over requests, ``tokens`` among them; of a peak the mean of the requests' own."""
    names = [*(field.name for field in fields(Served)), "tokens"]
    return {name: sum(getattr(one, name) for one in served) / len(served) for name in names}


def charge(ledger: Ledger, served: Served, account: Account, *, put: int = 0) -> None:
    """Charge a request to an account of the ledger: ``generate`` for text that is wanted, ``evaluate`` for judged text.

    ``put``: tokens at the end of its prompt that were put there, such as a close tag behind thinking that was cut; they are
    charged as inserted.
    """
    ledger.charge(
        account,
        supervised=0,
        processed=served.tokens,
        padded=max(served.padded, served.tokens),
        flops=served.flops,
        thinking=served.thinking,
        answer=served.answer,
        inserted=served.inserted + put,
    )


class Meter:
    """Counts one request while it is served; told plain numbers by the code that does the work, it looks at no tensor.

    Args:
        prices: Of the model's passes.
        clock: Returns seconds.
    """

    def __init__(self, prices: Prices, clock: Callable[[], float]) -> None:
        self._prices, self._clock = prices, clock
        # What a pass over so many tokens costs without attention: nearly all are over one.
        self._products: dict[int, float] = {}
        self._counts: dict[str, Any] = {field.name: field.default for field in fields(Served)}
        self._started = clock()

    def prefill(self, new: int, cached: int = 0, *, reused: int = 0, padded: int | None = None) -> None:
        """Count a pass over ``new`` prompt positions behind ``cached`` ones; ``reused`` were found in a cache."""
        self._add(prompt=new, reused=reused, padded=new if padded is None else padded)
        self._pass(new, new * (cached + new))
        self._spend("prefill")

    def step(self, attended: float, *, padded: int = 1) -> None:
        """Count a pass over one new token that attends to ``attended`` positions, itself included: a mean over layers."""
        self._add(steps=1, padded=padded)
        self._pass(1, attended)
        self._spend("decode")

    def memory(self, *, resident: int, side: int = 0, host: int = 0, read: int = 0, moved: int = 0) -> None:
        """Count the bytes of the step, or the prefill, that was just made."""
        for name, bytes_now in (("resident_peak", resident), ("side_peak", side), ("host_peak", host)):
            self._counts[name] = max(self._counts[name], bytes_now)
        self._add(read=read, moved=moved, resident_steps=resident if self._counts["steps"] else 0)

    def estimated(self, flops: float) -> None:
        """Count the products of an estimator, which are attention's."""
        self._add(flops=flops, attention_flops=flops)

    def token(self, kind: str) -> None:
        """Count a generated token: ``thinking``, ``answer`` or ``inserted``."""
        self._add(**{kind: 1})

    def waste(self, positions: int, cached: int = 0, *, padded: int | None = None) -> None:
        """Count a pass over positions that are thrown away, or that had been read before."""
        self._add(wasted=positions, padded=positions if padded is None else padded)
        self._pass(positions, positions * (cached + positions))
        self._spend("prefill")

    def idle(self, positions: int) -> None:
        """Count positions of a pass that this request has no part in any more: padding."""
        self._add(padded=positions)
        self._started = self._clock()

    def close(self) -> Served:
        """Return what was counted."""
        return Served(**self._counts)

    def _pass(self, new: int, pairs: float) -> None:
        whole = self._prices.forward(Work(new, pairs))
        if new not in self._products:
            self._products[new] = self._prices.forward(Work(new, 0))
        self._add(flops=whole, attention_flops=whole - self._products[new])

    def _spend(self, phase: str) -> None:
        now = self._clock()
        self._add(**{phase: now - self._started})
        self._started = now

    def _add(self, **counts: float) -> None:
        for name, count in counts.items():
            self._counts[name] += count
