"""Loops over bit planes and counts, for which torch has no operation: compiled by numba where it is installed.

Without it they are ordinary Python, far too slow for a decode step; `_kernels` does the same by torch then. One thread runs
them: numba's own pool of threads aborts where two of Python's enter it, and waits for torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    try:
        from numba import njit
    except ImportError:
        return loop
    compiled: Callable[..., Any] = njit(loop, nogil=True, cache=True)
    return compiled


@_compiled
def butterflies(rows: Array) -> None:
    """Replace each row (n, d) by its sums and differences, in the order of Sylvester's Hadamard matrix."""
    size = rows.shape[1]
    for r in range(rows.shape[0]):
        row = rows[r]
        half = 1
        while half < size:
            for start in range(0, size, 2 * half):
                left, right = row[start : start + half], row[start + half : start + 2 * half]
                for i in range(half):
                    a, b = left[i], right[i]
                    left[i], right[i] = a + b, a - b
            half *= 2


# Tokens at a time, so that a stretch of distances stays in the nearest cache.
_STRETCH = 2048
_ODD, _PAIRS, _NIBBLES, _BYTES = (np.uint64(m * 0x0101010101010101) for m in (0x55, 0x33, 0x0F, 0x01))
_1, _2, _4, _15, _56 = (np.uint64(n) for n in (1, 2, 4, 15, 56))


@_compiled
def _ones(x: Any) -> Any:  # noqa: ANN401 - a word of 64 bits; compilers know this for one instruction
    x = x - ((x >> _1) & _ODD)
    x = (x & _PAIRS) + ((x >> _2) & _PAIRS)
    return (((x + (x >> _4)) & _NIBBLES) * _BYTES) >> _56


@_compiled
def _add(high: Array, low: Array, one: Any, two: Any, three: Any, out: Array) -> None:  # noqa: ANN401
    for j in range(out.shape[0]):
        h, lo = np.uint64(high[j]), np.uint64(low[j])
        out[j] += np.int32(_ones((h | lo) ^ one) + _ones(h ^ two) + _ones((h & lo) ^ three))


@_compiled
def hamming3(planes: Array, queries: Array, n: int, out: Array) -> None:
    """Add up, for every token, its Manhattan distances to the queries.

    Args:
        planes: Of the keys, (rows, 2 W, capacity) unsigned: W words of high bits, then W of low bits.
        queries: (rows, G, 2 W), alike.
        n: Tokens.
        out: (rows, n) int32, is written.
    """
    rows, words = planes.shape[0], planes.shape[1] // 2
    for r in range(rows):
        for start in range(0, n, _STRETCH):
            end = min(n, start + _STRETCH)
            part = out[r, start:end]
            part[:] = 0
            for g in range(queries.shape[1]):
                for w in range(words):
                    h, lo = np.uint64(queries[r, g, w]), np.uint64(queries[r, g, words + w])
                    high, low = planes[r, w, start:end], planes[r, words + w, start:end]
                    _add(high, low, h | lo, h, h & lo, part)


@_compiled
def _look_up(high: Array, low: Array, table: Array, shift: Any, out: Array) -> None:  # noqa: ANN401
    for j in range(out.shape[0]):
        upper, lower = (np.uint64(high[j]) >> shift) & _15, (np.uint64(low[j]) >> shift) & _15
        out[j] += table[(upper << _4) | lower]


@_compiled
def looked_up(planes: Array, tables: Array, n: int, out: Array) -> None:
    """Add up, for every token, what the tables say of each four coordinates.

    Args:
        planes: As for `hamming3`.
        tables: (rows, F, 256) float32, by four high bits and four low bits; F four times the words' bytes or fewer.
        n: Tokens.
        out: (rows, n) float32, is written.
    """
    rows, words = planes.shape[0], planes.shape[1] // 2
    fours = tables.shape[1] // words
    for r in range(rows):
        for start in range(0, n, _STRETCH):
            end = min(n, start + _STRETCH)
            part = out[r, start:end]
            part[:] = 0
            for f in range(tables.shape[1]):
                w, shift = f // fours, np.uint64(4 * (f % fours))
                high, low, table = planes[r, w, start:end], planes[r, words + w, start:end], tables[r, f]
                _look_up(high, low, table, shift, part)


@_compiled
def smallest(scores: Array, most: int, out: Array) -> None:
    """Write where each row's smallest scores are, ascending; of equal ones the later.

    Args:
        scores: (rows, n) int32, from -1 to ``most``.
        most: The largest.
        out: (rows, k) int64, is written.
    """
    rows, n = scores.shape
    k = out.shape[1]
    for r in range(rows):
        row, found = scores[r], out[r]
        counts = np.zeros(most + 2, np.int64)
        for j in range(n):
            counts[row[j] + 1] += 1
        last, before = 0, 0
        while before + counts[last] < k:
            before += counts[last]
            last += 1
        equal, place, last = k - before, k, last - 1
        for j in range(n - 1, -1, -1):
            if row[j] < last or (row[j] == last and equal > 0):
                if row[j] == last:
                    equal -= 1
                place -= 1
                found[place] = j
