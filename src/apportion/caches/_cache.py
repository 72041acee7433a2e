"""What every method of reading a cache is: a frozen config, and pure functions on the tensors of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from apportion._config import Config
from apportion._errors import ApportionError
from apportion.caches._kernels import largest, smallest
from apportion.caches._placement import Placement
from apportion.caches._rows import Rows, gathered

# A method's tensors beside keys and values, by name: rows by token or by page, or a tensor (b, heads, ...) once a request.
Side = dict[str, "Rows | Tensor"]


@dataclass(frozen=True)
class KvShape:
    """The sizes of a model's full-attention layers.

    ``heads`` of queries and ``kv_heads`` of keys and values, each of ``head`` numbers of ``itemsize`` bytes.
    """

    layers: int
    heads: int
    kv_heads: int
    head: int
    itemsize: int

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return self.heads // self.kv_heads

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values, of all KV heads of one layer."""
        return 2 * self.kv_heads * self.head * self.itemsize


class Selection(NamedTuple):
    """Which held tokens a decode step attends to, ascending: ``indices`` (b, kv_heads, k).

    ``valid`` is alike, False for filling; None where none is.
    """

    indices: Tensor
    valid: Tensor | None


class Held(NamedTuple):
    """What one layer holds while a step is made.

    ``keys`` and ``values`` (b, kv_heads, n, d); ``valid`` (b, kv_heads, n), False where a prompt is padded, None where none
    is; ``side`` the method's own; ``layer`` which one it is; ``scaling`` what the model multiplies products with.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    side: Side
    layer: int
    scaling: float


class CacheMethod(Config):
    """A way to read of a cache, in each decode step, no more than a budget.

    A layer's first ``dense_layers`` are read whole. What the others read is the method's; a budget at or above what is held
    is dense, and no method is asked.

    Attributes:
        evicts: Whether it forgets: then it keeps what is held within the budget.
        places: Whether it keeps some of what is held elsewhere than on the device; see `place`.
        reads_less: Whether it ever reads less than everything.
    """

    evicts: ClassVar[bool] = False
    places: ClassVar[bool] = False
    reads_less: ClassVar[bool] = True

    dense_layers: int = Field(0, ge=0)

    @property
    def page_size(self) -> int | None:
        """Tokens of a page, None for a method without pages."""
        return None

    def check(self, shape: KvShape, budget: int) -> None:
        """Refuse a model, or a budget in tokens, that the method cannot work with.

        Raises:
            ApportionError: As said.
        """

    def refusal(self, why: str) -> ApportionError:
        """Return the error of something that this method cannot do."""
        return ApportionError(f"'{type(self).__name__.lower()}' {why}.")

    def extend(self, side: Side, keys: Tensor, start: int) -> None:
        """Take note of new ``keys`` (b, kv_heads, m, d), the first at position ``start``, in ``side``."""

    def settle(self, held: Held, queries: Tensor) -> None:
        """Take note, once, that the prompt is read; ``queries`` (b, heads, w, d) are its last."""

    def look(self, held: Held, query: Tensor) -> None:
        """Look at a decode step that reads everything, whose ``query`` is (b, heads, 1, d)."""

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return what a decode step of ``query`` (b, heads, 1, d) attends to: at most ``budget`` tokens a KV head.

        The newest token, the query's own, is among them.
        """
        raise NotImplementedError

    def keep(self, held: Held, queries: Tensor | None, budget: int) -> Tensor | None:
        """Return the indices (b, kv_heads, k), ascending, of what is not forgotten; None for all.

        Args:
            held: What there is, the newest token included.
            queries: The prompt's last ones (b, heads, w, d), right after the prompt; None after a decode step.
            budget: Tokens a KV head.
        """
        return None

    def place(self, held: Held, queries: Tensor, budget: int) -> Placement:
        """Return where pages lie from now on, of a method that ``places`` them.

        Args:
            held: What there is, more than the budget.
            queries: The newest ones (b, heads, w, d).
            budget: Tokens a KV head.
        """
        raise NotImplementedError

    def step(
        self, held: Held, placement: Placement, query: Tensor, budget: int, number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a decode step attends to where pages are placed: keys, values, and which of it counts.

        Args:
            held: What there is; its keys are not looked at.
            placement: Where it is.
            query: (b, heads, 1, d).
            budget: Tokens a KV head.
            number: The step since the pages were placed, from 0.
        """
        raise NotImplementedError

    def limit(self, budget: int, generated: int) -> int:
        """Return the tokens that a decode step may read with so many ``generated`` since the prompt: the budget."""
        return budget

    def reads(self, shape: KvShape, held: int, budget: int) -> int:
        """Return the bytes beside keys and values that a decode step of one row reads in one layer: all that there are."""
        return self.beside(shape, held)

    def kept(self, shape: KvShape, held: int, budget: int) -> int:
        """Return the bytes of keys and values on the device, of one row in one layer that holds so many tokens."""
        return held * shape.token_bytes

    def beside(self, shape: KvShape, held: int) -> int:
        """Return the bytes beside keys and values, of one row in one layer that holds so many tokens."""
        return 0

    def estimates(self, shape: KvShape, held: int) -> float:
        """Return the FLOPs that choosing takes in a decode step of one row in one layer; integer work is none."""
        return 0.0

    def votes(self, shape: KvShape, held: int, budget: int) -> float:
        """Return the FLOPs that the end of a prompt of ``held`` tokens takes for one row in one layer."""
        return 0.0

    def rebuilt(self, side: Side, keys: Tensor) -> Side:
        """Return ``side`` as it is for ``keys`` alone, after some were taken away at the end."""
        fresh: Side = {name: part for name, part in side.items() if isinstance(part, Tensor)}
        self.extend(fresh, keys, 0)
        return fresh


def rows_of(side: Side, name: str) -> Rows:
    """Return the rows of that name, new ones where there are none yet."""
    part = side.setdefault(name, Rows())
    assert isinstance(part, Rows)
    return part


def side_bytes(side: Side) -> int:
    """Return the bytes of what a method keeps beside keys and values."""
    return sum(part.nbytes for part in side.values())


def grouped(query: Tensor, kv_heads: int) -> Tensor:
    """Return a step's queries (b, heads, 1, d) by the KV head that they share: (b, kv_heads, group, d)."""
    b, heads, _, d = query.shape
    return query.reshape(b, kv_heads, heads // kv_heads, d)


def best(scores: Tensor, valid: Tensor | None, count: int, *, newest: int = 1, sinks: int = 0) -> Selection:
    """Return the ``count`` tokens with the highest scores (b, kv_heads, n), with some that are always among them.

    Padding is never chosen. The ``newest`` tokens and the first ``sinks`` of each row always are, within the count. Of equal
    scores the newer token is taken. Where a row has fewer tokens, the rest is filling. The scores are overwritten.
    """
    _settled(scores, valid, newest, sinks, torch.inf, -torch.inf)
    return _selection(largest(scores, count), valid)


def nearest(
    distances: Tensor, valid: Tensor | None, count: int, most: int, *, newest: int = 1, sinks: int = 0
) -> Selection:
    """Return the ``count`` tokens with the smallest distances (b, kv_heads, n), int32 from 0 to ``most``, as `best` does."""
    _settled(distances, valid, newest, sinks, -1, most + 1)
    b, heads, n = distances.shape
    return _selection(smallest(distances.view(-1, n), count, most + 1).view(b, heads, count), valid)


def ends(held: Held, budget: int, sinks: int) -> Selection:
    """Return each row's newest tokens and its first ``sinks``, ``budget`` in all; the newest one is among them."""
    b, heads, n, _ = held.keys.shape
    count = min(budget, n)
    sinks = min(sinks, count - 1)
    if held.valid is None:
        where = torch.arange(count, device=held.keys.device)
        return Selection(torch.where(where < sinks, where, where + n - count).expand(b, heads, count), None)
    newness = torch.arange(n, device=held.keys.device, dtype=torch.float32).repeat(b, heads, 1)
    return best(newness, held.valid, count, sinks=sinks)


def _settled(scores: Tensor, valid: Tensor | None, newest: int, sinks: int, always: float, never: float) -> None:
    n = scores.shape[2]
    scores[..., max(n - newest, 0) :] = always
    if valid is None:
        scores[..., :sinks] = always
        return
    if sinks:
        where = torch.arange(n, device=scores.device)
        first = valid.long().argmax(dim=2, keepdim=True)
        scores.masked_fill_((where >= first) & (where < first + sinks), always)
    scores.masked_fill_(~valid, never)


def _selection(indices: Tensor, valid: Tensor | None) -> Selection:
    return Selection(indices, None if valid is None else torch.gather(valid, 2, indices))


__all__ = [
    "CacheMethod",
    "Held",
    "KvShape",
    "Rows",
    "Selection",
    "Side",
    "best",
    "ends",
    "gathered",
    "grouped",
    "nearest",
    "rows_of",
    "side_bytes",
]
