"""Adamas: keys in two bits a coordinate, turned by a Hadamard matrix, ranked by Manhattan distance (arXiv 2510.18413)."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from apportion.caches._cache import (
    CacheMethod,
    Held,
    KvShape,
    Selection,
    Side,
    best,
    gathered,
    grouped,
    nearest,
    rows_of,
)
from apportion.caches._codes import above, code, hadamard, lloyd_max, padded, quartiles
from apportion.caches._kernels import hamming3, largest, looked_up, planes_of

_FIXED = (-10.0, 0.0, 10.0)
# Tokens that thresholds are taken from, evenly over the prompt; and coded at a time.
_SAMPLE, _STRETCH = 1024, 4096
# Up to so many tokens thresholds are taken anew in each step.
_FEW = 64


class Adamas(CacheMethod):
    """Keeps everything and two bits a coordinate beside it, and reads the tokens whose codes are nearest the query's.

    With an orthonormal Hadamard matrix, q' = q H and k' = k H; code(x) = #{t in (t1, t2, t3): x > t}; the tokens with the
    smallest sum_c |code(q'_c) - code(k'_c)| are attended to with their full keys.

    Args:
        estimator: ``l1`` is that. ``xor`` takes the exclusive or of the codes, as the published kernel does: it
            says 3 instead of 1 for the codes 1 and 2. ``asym`` ranks by sum_c q'_c centre_c[code(k'_c)], codes and centres
            being Lloyd and Max's of each channel, less its mean; it has no use for ``thresholds``.
        thresholds: ``quartiles`` of the prompt's numbers by layer and KV head, the queries' by those of its last ones;
            ``fixed``, the paper's -10, 0, 10; or three numbers.
        group: The query heads of a KV head share a choice: by the ``sum`` of their distances, or in turn, each ``query``
            taking its next one until the budget is used up.
        recent, sinks: Newest and first tokens that are always read, within the budget.

    Shapes: codes of the next power of two of the head size, 8 at least.
    Cost: a decode step reads a sixteenth of the keys' bytes in fp32, an eighth in half precision, and the budget. ``asym``
        takes 2 H d n FLOPs; distances take none that is counted. Side data: the codes.
    References: arXiv 2510.18413; ``group``, ``asym`` and quartiles are ours.
    Departures: grouped queries; thresholds from the prompt, where the paper's were set for two models; the exact distance.
        Of a prompt longer than 1,024 tokens, 1,024 that lie evenly give the thresholds. Up to 64 held tokens they are taken
        anew in each step. ``dense_layers`` is the paper's, of which what is read is counted.
    """

    dense_layers: int = Field(2, ge=0)
    estimator: Literal["l1", "xor", "asym"] = "l1"
    thresholds: Literal["quartiles", "fixed"] | tuple[float, float, float] = "quartiles"
    group: Literal["sum", "query"] = "sum"
    recent: int = Field(1, ge=1)
    sinks: int = Field(0, ge=0)

    @field_validator("thresholds")
    @classmethod
    def _usable(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("estimator") == "asym" and value != "quartiles":
            raise ValueError("has no meaning for the estimator 'asym', whose thresholds are those of its centres")
        if isinstance(value, tuple) and list(value) != sorted(set(value)):
            raise ValueError("must be 'quartiles', 'fixed' or three numbers, each larger than the one before")
        return value

    def settle(self, held: Held, queries: Tensor) -> None:
        """Take the thresholds from the prompt, and code what is held."""
        kv_heads, w = held.keys.shape[1], queries.shape[2]
        asked = queries.unflatten(1, (kv_heads, -1))
        b, _, group = asked.shape[:3]
        # The newest token is generated already.
        counted = None if held.valid is None else held.valid[:, :, None, -w - 1 : -1]
        if counted is not None:
            counted = counted.expand(b, kv_heads, group, w).flatten(2)
        if self.estimator != "asym":
            turned = hadamard(asked).flatten(2, 3)
            held.side["queries"] = self._thresholds(turned, counted)
        self._code(held, 1)

    def _code(self, held: Held, newest: int) -> None:
        """Take the keys' thresholds from all but the ``newest`` tokens, and code all."""
        keys, counted = _sampled(held, held.keys.shape[2] - newest)
        turned = hadamard(keys)
        if self.estimator == "asym":
            held.side["keys"], held.side["centres"] = lloyd_max(turned, counted)
        else:
            held.side["keys"] = found = self._thresholds(turned, counted)
            self._warn(turned, found)
        rows_of(held.side, "codes").crop(0)
        self.extend(held.side, held.keys, 0)

    def _thresholds(self, turned: Tensor, counted: Tensor | None) -> Tensor:
        if self.thresholds == "quartiles":
            return quartiles(turned, counted)
        fixed = _FIXED if self.thresholds == "fixed" else self.thresholds
        return turned.new_tensor(fixed)[:, None].expand(*turned.shape[:2], 3, 1).contiguous()

    def _warn(self, turned: Tensor, thresholds: Tensor) -> None:
        if self.thresholds != "quartiles":
            codes = code(turned, thresholds)
            middle = ((codes == 1) | (codes == 2)).float().mean().item()
            if middle > 0.99:
                warnings.warn(
                    f"{middle:.1%} of the keys' numbers lie between the outer ones of 'thresholds', so that only their "
                    "signs count: try 'quartiles'.",
                    stacklevel=2,
                )

    def extend(self, side: Side, keys: Tensor, start: int) -> None:
        """Code new keys, once there are thresholds."""
        thresholds = side.get("keys")
        if not isinstance(thresholds, Tensor):
            return
        codes = rows_of(side, "codes")
        for part in keys.split(_STRETCH, dim=2):
            planes = planes_of(above(hadamard(part), thresholds))
            codes.append(planes.transpose(2, 3).flatten(1, 2))

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return the nearest tokens."""
        if held.keys.shape[2] <= _FEW:
            self._code(held, 0)
        b, kv_heads, n, _ = held.keys.shape
        turned = hadamard(grouped(query, kv_heads)).contiguous()
        codes = rows_of(held.side, "codes").view()
        planes = codes.unflatten(1, (kv_heads, -1)).flatten(0, 1)
        if self.group == "query" and turned.shape[2] > 1:
            each = [self._scores(held.side, planes, turned[:, :, g : g + 1]) for g in range(turned.shape[2])]
            first = torch.stack([_ranks(scores, held.valid, budget) for scores in each]).amin(0)
            return best(-first, held.valid, budget, newest=self.recent, sinks=self.sinks)
        if self.estimator == "l1":
            most = 3 * turned.shape[2] * turned.shape[3]
            found = self._distances(held.side, planes, turned).view(b, kv_heads, n)
            return nearest(found, held.valid, budget, most, newest=self.recent, sinks=self.sinks)
        return best(self._scores(held.side, planes, turned), held.valid, budget, newest=self.recent, sinks=self.sinks)

    def _distances(self, side: Side, planes: Tensor, turned: Tensor) -> Tensor:
        return hamming3(planes, planes_of(above(turned, _tensor(side, "queries"))).flatten(0, 1))

    def _scores(self, side: Side, planes: Tensor, turned: Tensor) -> Tensor:
        """Return how near each key is to the queries (b, kv_heads, group, d), (b, kv_heads, n): more is nearer."""
        b, kv_heads = turned.shape[:2]
        if self.estimator == "l1":
            return -self._distances(side, planes, turned).view(b, kv_heads, -1).float()
        if self.estimator == "asym":
            table = turned.sum(2)[..., None] * _tensor(side, "centres").transpose(2, 3)
        else:
            differing = code(turned, _tensor(side, "queries"))[..., None] ^ torch.arange(4, device=turned.device)
            table = -differing.sum(2)
        return looked_up(planes, table.flatten(0, 1)).view(b, kv_heads, -1)

    def beside(self, shape: KvShape, held: int) -> int:
        """Return the bytes of all codes, with thresholds and centres."""
        size = padded(shape.head)
        numbers = 7 * size if self.estimator == "asym" else 6
        return shape.kv_heads * (held * size // 4 + numbers * max(shape.itemsize, 4))

    def estimates(self, shape: KvShape, held: int) -> float:
        """Return the FLOPs of ``asym``; distances take none."""
        return 2.0 * shape.heads * shape.head * held if self.estimator == "asym" else 0.0


def _tensor(side: Side, name: str) -> Tensor:
    found = side[name]
    assert isinstance(found, Tensor)
    return found


def _sampled(held: Held, length: int) -> tuple[Tensor, Tensor | None]:
    """Return up to 1,024 keys (b, kv_heads, m, d) that lie evenly among the first ``length``, and which of them count."""
    m, device = min(_SAMPLE, length), held.keys.device
    at = torch.arange(m, device=device)
    if held.valid is None:
        return held.keys[:, :, at * length // m], None
    valid = held.valid[..., :length]
    # Tokens that count come first, in order; a row of fewer than the sample has all of them.
    order = (~valid).to(torch.int8).sort(dim=2, stable=True).indices
    count = valid.sum(2, keepdim=True)
    places = torch.where(count > m, at * count // m, at)
    return gathered(held.keys, torch.gather(order, 2, places)), at < count


def _ranks(scores: Tensor, valid: Tensor | None, count: int) -> Tensor:
    """Return the rank of the ``count`` best (b, kv_heads, n) from 0 on; ``count`` for all others."""
    if valid is not None:
        scores = scores.masked_fill(~valid, -torch.inf)
    order = largest(scores, count, ranked=True)
    ranks = torch.full(scores.shape, float(count), device=scores.device)
    return ranks.scatter_(2, order, torch.arange(count, device=scores.device).float().expand(order.shape))
