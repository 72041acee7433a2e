"""What the layers of a cache tell while a step is made, added up for whoever counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Watch:
    """Sums over the layers and rows of the passes since they were last taken; bytes, and positions attended to.

    ``attended`` sums, over rows, KV heads and layers, the tokens that a decode step read; ``layers`` counts the layers that
    made a pass. ``read`` and ``moved`` are bytes; ``estimated`` FLOPs of choosing. ``most`` is the largest number of tokens
    that any row's KV head in a layer under the budget read in one step.
    """

    attended: float = 0.0
    layers: int = 0
    read: int = 0
    moved: int = 0
    estimated: float = 0.0
    most: int = 0

    def taken(self) -> Watch:
        """Return what was added up, and start from nothing."""
        said = Watch(**vars(self))
        self.__init__()  # type: ignore[misc]
        return said
