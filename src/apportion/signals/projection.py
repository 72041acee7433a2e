"""A random projection of long vectors that is never stored: places and signs follow from a seed alone."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2^64 over the golden ratio, as a signed number


def _mixed(x: Tensor) -> Tensor:
    """Return 64 well-mixed bits of each int64: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    # Torch shifts int64 arithmetically: what comes in from the left is taken off.
    return (x >> by) & ((1 << (64 - by)) - 1)


def places(start: int, width: int, seed: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return which of the numbers from ``start`` on goes to each of ``width`` places, (width,), and its sign, (width,).

    Whole numbers decide them, so that they are the same on every device.

    Args:
        start: The first number's.
        width: Places, and numbers that are shared out over them, one to each.
        seed: Of both.
        device: Where to.
    """
    bits = _mixed((torch.arange(start, start + width, device=device) + (seed << 40)) * _GOLDEN)
    order = torch.argsort(bits, stable=True)
    return order, 1.0 - 2.0 * (bits[order] & 1).float()


def projected(vectors: Tensor, width: int, seed: int) -> Tensor:
    """Return ``vectors``, (n, P), in ``width`` numbers, (n, width) in fp32.

    Stretches of ``width`` numbers are each put in an order of their own, given random signs, and added up. Products of two
    projected vectors have the vectors' as their mean, and a variance of the size that a dense projection by random signs
    has, at 1 / ``width`` of its cost. Sources: count sketch (Charikar, Chen and Farach-Colton 2002), feature hashing
    (Weinberger et al. 2009); here no two numbers of a stretch meet. Every place sums the same numbers in the same order on
    every device, so that results are equal to the last bit.

    Cost: 2 n P FLOPs, which the caller charges.
    """
    found = torch.zeros(len(vectors), width, device=vectors.device)
    for start in range(0, vectors.shape[1], width):
        part = vectors[:, start : start + width].float()
        if part.shape[1] < width:
            part = torch.nn.functional.pad(part, (0, width - part.shape[1]))
        order, signs = places(start, width, seed, vectors.device)
        found += part[:, order] * signs
    return found
