"""When something is due that happens once in every so much of the budget, and how such a share is written."""

from __future__ import annotations

import math


def next_due(progress: float, every: float) -> float:
    """Return the first multiple of ``every`` after ``progress``, both shares of the budget.

    Steps that cross several multiples at once owe one measurement, not several.
    """
    return (math.floor(progress / every + 1e-9) + 1) * every


def read_share(value: object) -> float:
    """Read a share such as ``"5%"`` or ``0.05``, in (0, 1]."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError("a share is written like 5% or 0.05") from None
    if not 0 < number <= 1:
        raise ValueError("a share lies above 0 and at most at 100%")
    return number
