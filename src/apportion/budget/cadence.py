"""When something is due that happens once in every so much of the budget."""

from __future__ import annotations

import math


def next_due(progress: float, every: float) -> float:
    """Return the first multiple of ``every`` after ``progress``, both shares of the budget.

    Steps that cross several multiples at once owe one measurement, not several.
    """
    return (math.floor(progress / every + 1e-9) + 1) * every
