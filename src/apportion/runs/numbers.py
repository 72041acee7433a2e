"""Counts and losses as people read them: what a run shows while it goes on, and its report afterwards."""

from __future__ import annotations

NONE = "–"


def count(value: float | None) -> str:
    """Return a count of tokens or examples: 950, 60k, 1.25M, 3B."""
    if value is None:
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def loss(value: float | None) -> str:
    """Return a loss with three digits after the point, two from ten up."""
    if value is None:
        return NONE
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
