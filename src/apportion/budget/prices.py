"""What a pass works on, and what any model can be asked about its price."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple, Protocol


class Work(NamedTuple):
    """What a pass works on, which its price follows from.

    ``tokens`` processed positions and ``pairs`` the sum over examples of length^2; means over examples price a mean one.
    ``examples`` are theirs one by one, for models whose price needs more: (n, 3) of each one's task, tokens before the
    first supervised one, and tokens from there on.
    """

    tokens: float
    pairs: float
    examples: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Cost:
    """What is expected to be spent on an account: ``supervised`` and ``processed`` tokens, ``flops``."""

    supervised: float = 0.0
    processed: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.supervised + other.supervised, self.processed + other.processed, self.flops + other.flops)

    def times(self, factor: float) -> Cost:
        """Return ``factor`` times as much."""
        return Cost(factor * self.supervised, factor * self.processed, factor * self.flops)

    def as_dict(self) -> dict[str, float]:
        """Return the amounts by name."""
        return asdict(self)


class Prices(Protocol):
    """What any model that is trained under a budget can say of its passes, in FLOPs.

    ``itemised``: whether a pass's price depends on which examples share a batch, so that means over draws do not give it.
    """

    itemised: ClassVar[bool]

    def forward(self, work: Work) -> float:
        """Price a forward pass."""
        ...

    def backward(self, work: Work) -> float:
        """Price the backward pass of the loss on labels to the trainable parameters."""
        ...

    def train(self, work: Work, *, recompute: bool = False) -> float:
        """Price a training step's forward and backward."""
        ...

    def ahead(self) -> Cost:
        """Price what is read once before training; charged to `generate`."""
        ...

    def jvp(self, work: Work) -> float:
        """Price a forward-mode pass along a direction of the trainable parameters."""
        ...

    def in_run_read(self, tokens: float) -> float:
        """Price reading `<grad l_k, u>` from an ordinary backward pass."""
        ...
