"""A random projection of long vectors, never stored whole: its signs follow from a seed and their place alone."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows that are made at a time: their signs stay in a processor's cache.
BLOCK = 512
# The widths that signs come in: the bits of an int64.
WORD = 64
_GOLDEN = -7046029254386353131  # 2^64 over the golden ratio, as a signed number
_ONE, _SIGN = 0x3F800000, -(2**31)  # of a float32


def _mixed(x: Tensor) -> Tensor:
    """Return 64 well-mixed bits of each int64: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    # Torch shifts int64 arithmetically: what comes in from the left is taken off.
    return (x >> by) & ((1 << (64 - by)) - 1)


def signs(start: int, rows: int, width: int, seed: int, device: torch.device) -> Tensor:
    """Return rows ``start`` to ``start + rows`` of the projection, (rows, width) of 1 and -1 in fp32.

    Whole numbers decide them, so that they are the same on every device.

    Args:
        start: First row.
        rows: How many.
        width: Columns, a multiple of 64.
        seed: Of all signs.
        device: Where to.
    """
    words = width // WORD
    places = torch.arange(start * words, (start + rows) * words, device=device) + (seed << 40)
    bits = _mixed(places * _GOLDEN).view(torch.int32).view(rows, 2 * words)
    made = torch.empty(rows, 32, 2 * words, dtype=torch.int32, device=device)
    for place in range(32):
        torch.bitwise_left_shift(bits, place, out=made[:, place])
    # What is left at the top of each is the sign of a one.
    return made.bitwise_and_(_SIGN).bitwise_or_(_ONE).view(torch.float32).view(rows, width)


def projected(vectors: Tensor, width: int, seed: int) -> Tensor:
    """Return ``vectors`` R, (n, width) in fp32, R (P, width) of random signs, its rows made a block at a time.

    Products of projected vectors over ``width`` are those of the vectors in the mean (Johnson and Lindenstrauss 1984;
    Achlioptas 2003 for signs). On devices of different kinds the results are equal to rounding.

    Args:
        vectors: (n, P).
        width: A multiple of 64.
        seed: Of R.

    Cost: 2 n P ``width`` FLOPs, which the caller charges.
    """
    found = torch.zeros(len(vectors), width, device=vectors.device)
    for start in range(0, vectors.shape[1], BLOCK):
        part = vectors[:, start : start + BLOCK].float()
        found.addmm_(part, signs(start, part.shape[1], width, seed, vectors.device))
    return found
