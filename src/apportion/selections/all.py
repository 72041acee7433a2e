"""All: nothing is left out."""

from __future__ import annotations

from typing import ClassVar

from apportion.selections._selection import Selection


class All(Selection):
    """Plain baseline: every example is kept.

    Cost: none.
    """

    keeps_all: ClassVar[bool] = True
