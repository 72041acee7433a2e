"""Keys in two bits a coordinate: turned by a Hadamard matrix, and counted against thresholds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from apportion.caches._kernels import butterflies

_ROUNDS = 8


def padded(head: int) -> int:
    """Return the coordinates that ``head`` ones are coded as: a power of two, 8 at least."""
    return max(8, 1 << (head - 1).bit_length())


def hadamard(x: Tensor) -> Tensor:
    """Return ``x`` (..., d) turned by the orthonormal Hadamard matrix, with zeros behind it to the next power of two.

    Products of two vectors stay as they are, and turning twice gives the vector again.
    """
    size = padded(x.shape[-1])
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    return butterflies(functional.pad(x, (0, size - x.shape[-1]))).mul_(size**-0.5)


def above(x: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return whether ``x`` (b, h, m, d) stands above each of three ``thresholds`` (b, h, 3, 1 or d): its code in unary."""
    return x > thresholds[:, :, None, 0], x > thresholds[:, :, None, 1], x > thresholds[:, :, None, 2]


def code(x: Tensor, thresholds: Tensor) -> Tensor:
    """Return how many of the thresholds ``x`` stands above, 0 to 3, int64."""
    one, two, three = above(x, thresholds)
    return one.long() + two + three


def quartiles(x: Tensor, counted: Tensor | None) -> Tensor:
    """Return the quartiles of all numbers of each row and head of ``x`` (b, h, m, d), as (b, h, 3, 1).

    Of c numbers in order the i-th quartile is number ceil(i c / 4). ``counted`` (b, h, m) is False for padding, None where
    there is none.
    """
    counted = None if counted is None else counted[..., None].expand_as(x).flatten(2)[..., None]
    return _quartiles(x.flatten(2)[..., None], counted)


def _quartiles(x: Tensor, counted: Tensor | None) -> Tensor:
    """Return the quartiles (b, h, 3, d) along the third dimension of ``x`` (b, h, m, d)."""
    if counted is not None:
        x = x.masked_fill(~counted, torch.inf)
    b, h, m, d = x.shape
    count = counted.sum(2, keepdim=True).expand(b, h, 1, d) if counted is not None else torch.full((b, h, 1, d), m)
    places = (count.to(x.device) * torch.tensor([1, 2, 3], device=x.device)[:, None] + 3) // 4 - 1
    return torch.gather(x.sort(dim=2).values, 2, places.clamp(min=0))


def lloyd_max(x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return thresholds (b, h, 3, d) and centres (b, h, 4, d) for each channel of ``x`` (b, h, m, d).

    Eight rounds of Lloyd's algorithm from the quartiles: each number is said by the nearest centre, each centre is the mean
    of its numbers. Centres are less the channel's mean: a vector added to all keys changes no attention.
    """
    mask = None if counted is None else counted[..., None]
    weight = torch.ones_like(x) if mask is None else mask.to(x.dtype).expand_as(x)
    thresholds = _quartiles(x, mask)
    centres = x
    for _ in range(_ROUNDS):
        codes = code(x, thresholds)
        cells = [weight * (codes == level) for level in range(4)]
        counts = torch.stack([cell.sum(2) for cell in cells], 2)
        sums = torch.stack([(cell * x).sum(2) for cell in cells], 2)
        # An empty cell stands at its neighbours' border, so that centres stay in order.
        inner = (thresholds[:, :, :-1] + thresholds[:, :, 1:]) / 2
        borders = torch.cat([thresholds[:, :, :1], inner, thresholds[:, :, -1:]], 2)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), borders)
        thresholds = (centres[:, :, 1:] + centres[:, :, :-1]) / 2
    mean = (x * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)
    return thresholds, centres - mean
