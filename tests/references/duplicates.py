"""Near-duplicates by looking at every pair: exact Jaccard similarities, and clusters that grow until they stand still."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def runs(text: Sequence[int], shingle: int) -> set[tuple[int, ...]]:
    """Return the text's runs of ``shingle`` tokens; of a shorter text all of it."""
    length = min(shingle, len(text))
    return {tuple(text[start : start + length]) for start in range(len(text) - length + 1)}


def jaccard(a: Sequence[int], b: Sequence[int], shingle: int) -> float:
    """Return |A & B| / |A | B| of the texts' runs."""
    one, other = runs(a, shingle), runs(b, shingle)
    return len(one & other) / len(one | other)


def grouped(count: int, alike: Callable[[int, int], bool]) -> list[set[int]]:
    """Return each item's cluster: all that a chain of alike pairs leads to."""
    found = []
    for start in range(count):
        cluster = {start}
        while more := {i for i in range(count) if any(alike(i, j) for j in cluster)} - cluster:
            cluster |= more
        found.append(cluster)
    return found


def literal(pool: Sequence[Sequence[int]], shingle: int, threshold: float) -> list[float]:
    """Return 1 / the size of each text's cluster."""
    clusters = grouped(len(pool), lambda i, j: jaccard(pool[i], pool[j], shingle) >= threshold)
    return [1 / len(cluster) for cluster in clusters]
