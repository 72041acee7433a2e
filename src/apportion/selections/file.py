"""File: what an earlier selection kept."""

from __future__ import annotations

from pathlib import Path

from apportion.selections._selection import Selection
from apportion.tasks.files import expand


class File(Selection):
    """Keeps what a file of `apportion select`, or of another run, kept; examples are told by task and id.

    Cost: what the file says that it cost, charged to the same accounts as if it were made now; nothing with
    ``charge: false``.

    Attributes:
        path: The Parquet file; columns ``task``, ``id`` and ``kept`` are enough, as other tools may write them.
        charge: Whether its cost is charged.
    """

    path: str
    charge: bool = True

    def given(self) -> Path | None:
        """Return the file."""
        return expand(self.path)

    @property
    def charges(self) -> bool:
        """Whether the cost is charged."""
        return self.charge
