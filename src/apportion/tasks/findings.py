"""How findings are worded: a count, what was counted, and what was done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def counted(n: int, noun: str) -> str:
    """Return ``n`` and the noun, in the plural unless there is one: ``1 example``, ``2,025 examples``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def sentences(dirt: Counter[str], said: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return a sentence for each kind of dirt found.

    Args:
        dirt: Counts by kind.
        said: By kind, the noun that is counted and the rest of the sentence, in the order of the result.
    """
    return [f"{counted(dirt[kind], noun)} {rest}." for kind, (noun, rest) in said.items() if dirt[kind]]
