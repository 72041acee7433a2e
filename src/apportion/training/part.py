"""What training is made of: parts that are told what happens, and that a checkpoint holds, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from apportion._errors import ApportionError
from apportion._ranks import world
from apportion.signals._records import Moment
from apportion.tasks.batches import Batch


@dataclass(frozen=True)
class Done:
    """Just after an optimizer step: ``step`` counts those taken, ``lr`` was the last one's."""

    model: nn.Module
    step: int
    lr: float


class Part:
    """A piece of a run. Every call may be left as it is: then the part does nothing there, and keeps nothing.

    Attributes:
        name: Its key in a checkpoint, of one part alone.
    """

    name: str

    def before_step(self, moment: Moment) -> None:
        """Do what is due before a step is drawn."""

    def during(self, model: nn.Module, batch: Batch, lr: float) -> AbstractContextManager[None]:
        """Wrap one micro-batch's forward and backward."""
        return nullcontext()

    def after_step(self, done: Done) -> None:
        """Do what is due after a step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: plain numbers, lists and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ApportionError: The run cannot go on from there.
        """


class Parts(Part):
    """Parts composed, in an order: the first is told first before a step and last after it, and is restored first.

    Raises:
        ValueError: Two parts of one name.
    """

    name = "parts"

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = list(parts)
        names = [part.name for part in self._parts]
        if len(set(names)) < len(names):
            raise ValueError(f"Two parts have one name: {names}.")

    def before_step(self, moment: Moment) -> None:
        """Tell each part, the first first."""
        for part in self._parts:
            part.before_step(moment)

    @contextmanager
    def during(self, model: nn.Module, batch: Batch, lr: float) -> Iterator[None]:
        """Wrap a micro-batch by every part, the first one outermost."""
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part.during(model, batch, lr))
            yield

    def after_step(self, done: Done) -> None:
        """Tell each part, the first last."""
        for part in reversed(self._parts):
            part.after_step(done)

    def state_dict(self) -> dict[str, Any]:
        """Return each part's state by its name, in their order."""
        return {part.name: part.state_dict() for part in self._parts}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore each part, the first first.

        Raises:
            ApportionError: The state is of other parts, or one of them cannot go on from it.
        """
        names = [part.name for part in self._parts]
        if list(state) != names:
            raise ApportionError(
                f"The checkpoint holds {', '.join(state)}, this version {', '.join(names)}: start a new folder."
            )
        for part in self._parts:
            part.load_state_dict(state[part.name], device)


class Stateful(Protocol):
    """Anything that keeps plain numbers."""

    def state_dict(self) -> dict[str, Any]:
        """Return them."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        ...


class Kept(Part):
    """A part that is only kept: something with a state that training moves by other ways."""

    def __init__(self, name: str, held: Stateful) -> None:
        self.name, self._held = name, held

    def state_dict(self) -> dict[str, Any]:
        """Return its state."""
        return self._held.state_dict()

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore its state."""
        self._held.load_state_dict(state)


class Origin(Part):
    """What a run began with, and goes on with only: the data, and the number of processes."""

    name = "origin"

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint

    def state_dict(self) -> dict[str, Any]:
        """Return the digest of the encoded tasks and the number of processes."""
        return {"fingerprint": self._fingerprint, "processes": world()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Check that both are the same.

        Raises:
            ApportionError: They are not.
        """
        if state["fingerprint"] != self._fingerprint:
            raise ApportionError(
                "The tasks' data or the tokenizer changed since this run began: put them back to resume it, "
                "or start in a new folder."
            )
        if state["processes"] != world():
            raise ApportionError(
                f"This run began with {state['processes']} processes, which decide the size of its steps, and not with "
                f"{world()}: start as many again, or a new folder."
            )
