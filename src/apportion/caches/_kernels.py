"""The inner work of choosing tokens: distances of codes, tables, and the best so many.

By numba's compiled loops where numba is installed and the tensors are a CPU's, with equal results by torch or numpy
elsewhere. A code is a number from 0 to 3 for each coordinate. Its high bits and its low bits are kept apart, as planes:
words of up to 64 coordinates, tokens side by side.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import Tensor

from apportion.caches import _loops

COMPILED = importlib.util.find_spec("numba") is not None
# A word of so many bits, by torch's type of it.
_WORDS = {8: torch.uint8, 16: torch.int16, 32: torch.int32, 64: torch.int64}
# Words at a time in torch, so that what is between two operations stays in a near cache.
_STRETCH = 4096


def word_bits(head: int) -> int:
    """Return the bits of a word for codes of ``head`` coordinates, a power of two of at least 8."""
    return min(head, 64)


def planes_of(codes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the bit planes (..., 2 W) of what stands above each of three thresholds, (..., d) bool each; d >= 8.

    First W words of high bits, then W of low ones; the first coordinate is the lowest bit.
    """
    one, two, three = codes
    both = torch.stack((two, one ^ two ^ three), dim=-2)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=one.device)
    packed = (both.unflatten(-1, (-1, 8)) * weights).sum(-1, dtype=torch.uint8)
    return packed.view(_WORDS[word_bits(one.shape[-1])]).flatten(-2)


def butterflies(x: Tensor) -> Tensor:
    """Return sums and differences of ``x`` (..., d), d a power of two, in the order of Sylvester's Hadamard matrix."""
    if _by_loops(x):
        x = x.contiguous().clone()
        _loops.butterflies(x.view(-1, x.shape[-1]).numpy())
        return x
    return butterflies_by_torch(x)


def butterflies_by_torch(x: Tensor) -> Tensor:
    """Return what `butterflies` does, by torch alone."""
    size, half = x.shape[-1], 1
    while half < size:
        pairs = x.unflatten(-1, (-1, 2, half))
        left, right = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack((left + right, left - right), dim=-2).flatten(-3)
        half *= 2
    return x


def hamming3(planes: Tensor, queries: Tensor) -> Tensor:
    """Return the Manhattan distances of codes, summed over queries, (rows, n) int32.

    |a - b| of two codes is the number of thresholds that stand between them: three counts of differing bits.

    Args:
        planes: Of the keys, (rows, 2 W, n).
        queries: (rows, G, 2 W).
    """
    if _by_loops(planes):
        out = torch.empty(planes.shape[0], planes.shape[2], dtype=torch.int32)
        _loops.hamming3(_whole(planes), _unsigned(queries), planes.shape[2], out.numpy())
        return out
    if planes.device.type == "cpu":
        return hamming3_by_numpy(planes, queries)
    return hamming3_by_torch(planes, queries)


def hamming3_by_numpy(planes: Tensor, queries: Tensor) -> Tensor:
    """Return what `hamming3` does, on a CPU by numpy, which counts bits where torch does not."""
    held, asked = (part.numpy().view(f"u{part.itemsize}") for part in (planes, queries.contiguous()))
    rows, words, n = len(held), held.shape[1] // 2, held.shape[2]
    out = np.zeros((rows, n), np.int32)
    for r in range(rows):
        high, low = held[r, :words], held[r, words:]
        ours = (high | low, high, high & low)
        differing, found = np.empty_like(high), np.empty(high.shape, np.uint8)
        for query in asked[r]:
            h, lo = query[:words, None], query[words:, None]
            for mine, theirs in zip(ours, (h | lo, h, h & lo), strict=True):
                np.bitwise_count(np.bitwise_xor(mine, theirs, out=differing), out=found)
                out[r] += found.sum(0, dtype=np.int32)
    return torch.from_numpy(out)


def hamming3_by_torch(planes: Tensor, queries: Tensor) -> Tensor:
    """Return what `hamming3` does, by torch alone."""
    rows, twice, n = planes.shape
    words = twice // 2
    out = torch.zeros(rows, n, dtype=torch.int32, device=planes.device)
    asked = queries.transpose(1, 2)[..., None]
    for start in range(0, n, _STRETCH):
        high, low = planes[:, :words, start : start + _STRETCH], planes[:, words:, start : start + _STRETCH]
        ours = (high | low, high, high & low)
        for g in range(queries.shape[1]):
            h, lo = asked[:, :words, g], asked[:, words:, g]
            for mine, theirs in zip(ours, (h | lo, h, h & lo), strict=True):
                out[:, start : start + _STRETCH] += _ones(mine ^ theirs).sum(1, dtype=torch.int32)
    return out


def _ones(x: Tensor) -> Tensor:
    """Return how many bits of each word are set."""
    size = x.element_size()
    odd, pairs, nibbles, every = (int.from_bytes(bytes([b]) * size, "little") for b in (0x55, 0x33, 0x0F, 0x01))
    x = x - ((x >> 1) & odd)
    x = (x & pairs) + ((x >> 2) & pairs)
    x = (x + (x >> 4)) & nibbles
    return x if size == 1 else (x * every) >> (8 * size - 8)


def looked_up(planes: Tensor, table: Tensor) -> Tensor:
    """Return the sum over coordinates of what ``table`` (rows, d, 4) says of their codes, (rows, n) float32."""
    tables = _fours(table.float())
    if _by_loops(planes):
        out = torch.empty(planes.shape[0], planes.shape[2])
        _loops.looked_up(_whole(planes), tables.numpy(), planes.shape[2], out.numpy())
        return out
    return looked_up_by_torch(planes, tables)


def looked_up_by_torch(planes: Tensor, tables: Tensor) -> Tensor:
    """Return what `looked_up` does, by torch alone; ``tables`` (rows, d / 4, 256) are those of each four coordinates."""
    rows, twice, n = planes.shape
    words = twice // 2
    fours = tables.shape[1] // words
    out = torch.zeros(rows, n, device=planes.device)
    for f in range(tables.shape[1]):
        w, shift = f // fours, 4 * (f % fours)
        index = (((planes[:, w] >> shift) & 15) << 4) | ((planes[:, words + w] >> shift) & 15)
        out += torch.gather(tables[:, f], 1, index.long())
    return out


def _fours(table: Tensor) -> Tensor:
    """Return sums of four coordinates' entries (rows, d / 4, 256), by their four high bits and four low bits."""
    at = torch.arange(256, device=table.device)
    rows, d, _ = table.shape
    parts = table.reshape(rows, d // 4, 4, 4)
    found = torch.zeros(rows, d // 4, 256, device=table.device)
    for i in range(4):
        found += parts[:, :, i][..., ((at >> (4 + i)) & 1) * 2 + ((at >> i) & 1)]
    return found


def smallest(scores: Tensor, count: int, most: int) -> Tensor:
    """Return where each row's ``count`` smallest scores are, ascending; of equal ones the later. (rows, count) int64.

    Args:
        scores: (rows, n) int32, from -1 to ``most``.
        count: Of each row.
        most: The largest score there can be.
    """
    if _by_loops(scores):
        out = torch.empty(len(scores), count, dtype=torch.int64)
        _loops.smallest(scores.numpy(), most, out.numpy())
        return out
    return largest(-scores, count)


def largest(scores: Tensor, count: int, *, ranked: bool = False) -> Tensor:
    """Return where the ``count`` largest scores (..., n) are, (..., count) int64; of equal ones the later is taken.

    Ascending by place, or ``ranked``, the largest score first.
    """
    if scores.is_floating_point():
        # The bits of a float, read as an integer, are in the order of the floats; minus zero is zero.
        bits = (scores.float() + 0.0).view(torch.int32)
        scores = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    # With its place below it no score is equal to another, and one search finds places and all.
    places = torch.arange(scores.shape[-1], device=scores.device)
    found = ((scores.long() << 32) | places).topk(count, sorted=ranked).values & 0xFFFFFFFF
    return found if ranked else found.sort().values


def _by_loops(tensor: Tensor) -> bool:
    return COMPILED and tensor.device.type == "cpu"


def _unsigned(words: Tensor) -> _loops.Array:
    found = words.contiguous().numpy()
    return found.view(f"u{found.itemsize}")


def _whole(planes: Tensor) -> _loops.Array:
    """Return planes (rows, 2 W, n) with the room behind their tokens where they are a view of a buffer: it is not copied."""
    rows, twice, room = planes.shape[0], planes.shape[1], planes.stride(1)
    ends = planes.storage_offset() + rows * twice * room
    if planes.stride() == (twice * room, room, 1) and ends <= planes.untyped_storage().nbytes() // planes.itemsize:
        planes = planes.as_strided((rows, twice, room), planes.stride())
    return _unsigned(planes)
