"""LoRA's alpha for trainers in which it is a whole number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def whole_alpha(lora: Mapping[str, Any], notes: list[str]) -> int:
    """Return the alpha of a recipe's ``lora`` block, at least 1; where it was rounded, a note is added that says so."""
    alpha = max(1, round(lora["alpha"]))
    if alpha != lora["alpha"]:
        notes.append(f"LoRA's alpha is a whole number there: {lora['alpha']:g} was rounded to {alpha}.")
    return alpha
