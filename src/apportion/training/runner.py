"""What the runners of mixtures and weights share: signals that are attached, checked, priced and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from apportion.budget import Account
from apportion.budget.prices import Cost, Work
from apportion.signals._records import Bench, Outlook
from apportion.signals._signal import Signal
from apportion.training.part import Part

S = TypeVar("S", bound=Signal)


class Runner(Part, Generic[S]):
    """Feeds one method what it needs; a method that needs nothing costs nothing.

    Args:
        signals: What the method needs, made anew.
        bench: What they measure with.

    Raises:
        ApportionError: The data does not allow a measurement.
    """

    def __init__(self, signals: Sequence[S], bench: Bench) -> None:
        self.signals = [signal.attach(bench) for signal in signals]

    def check(self, shapes: nn.Module, optim: str, packed: bool) -> None:
        """Refuse what cannot be measured, before anything is spent; arguments and errors are `Signal.check`'s."""
        for signal in self.signals:
            signal.check(shapes, optim, packed)

    def load(self) -> None:
        """Load what the signals measure with; errors are `Signal.load`'s."""
        for signal in self.signals:
            signal.load()

    def opening(self) -> float:
        """Return the FLOPs that have to be spent before the first step."""
        return sum(signal.opening() for signal in self.signals)

    def step_price(self, work: Work) -> float:
        """Return the FLOPs that a training step over ``work`` costs more."""
        return sum(signal.step_price(work) for signal in self.signals)

    def price(self, outlook: Outlook) -> dict[Account, Cost]:
        """Return what is charged over a whole run, by account."""
        found: dict[Account, Cost] = {}
        for signal in self.signals:
            found[signal.account] = found.get(signal.account, Cost()) + signal.price(outlook)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the signals' states, in their order."""
        return {"signals": [signal.state_dict() for signal in self.signals]}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        for signal, its in zip(self.signals, state["signals"], strict=True):
            signal.load_state_dict(its, device)
