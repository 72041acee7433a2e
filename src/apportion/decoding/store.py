"""One layer of a cache under a budget, as transformers' own generation drives it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from apportion._errors import ApportionError
from apportion.caches._cache import CacheMethod, Held, KvShape, Rows, Selection, Side, gathered, side_bytes
from apportion.caches._placement import Placement
from apportion.decoding.watch import Watch

# Queries at the end of the prompt that methods may look at.
_LAST = 32


class Layer(DynamicLayer):
    """Holds a layer's keys and values in buffers that grow by doubling, and what the method keeps beside them.

    To transformers its length is the logical one, whatever was forgotten. What `update` returns are views of the moment,
    which carry the layer to the attention function.

    Args:
        method: How a decode step reads it.
        index: Which layer it is.
        shape: The model's sizes.
        budget: Returns the tokens that may be read a KV head, of so many that are cached.
        watch: Told what is read.
    """

    def __init__(self, method: CacheMethod, index: int, shape: KvShape, budget: Any, watch: Watch) -> None:  # noqa: ANN401
        super().__init__()
        self.method, self.index, self.shape, self.watch = method, index, shape, watch
        self._budget = budget
        # What attention multiplies products with; the model's own, once it has called it.
        self.scaling = shape.head**-0.5
        self.reset()

    @property
    def whole(self) -> bool:
        """Whether this layer is read whole, whatever the budget."""
        return self.index < self.method.dense_layers

    def reset(self) -> None:
        """Hold nothing."""
        self._rows = (Rows(), Rows())
        self.side: Side = {}
        # Where each held token stands, (b, kv_heads, n), once some were forgotten.
        self.positions: Tensor | None = None
        self.seen = self._prompt = 0
        self._queries: Tensor | None = None
        self.settled = False
        self.placement: Placement | None = None
        self._steps = 0
        self.keys: Any = None
        self.values: Any = None
        self.is_initialized = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Note the device; buffers are made as they are needed.

        Raises:
            ApportionError: Keys of another model than the cache was made for.
        """
        heads, head = key_states.shape[1], key_states.shape[3]
        if (heads, head) != (self.shape.kv_heads, self.shape.head):
            raise ApportionError(
                f"This cache is of a model with {self.shape.kv_heads} KV heads of {self.shape.head}, and was given to one "
                f"with {heads} of {head}: make one for each model."
            )
        self.device, self.dtype, self.is_initialized = key_states.device, key_states.dtype, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Add new keys and values (b, kv_heads, m, d), and return views of all that is held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.placement is not None:
            return self._placed(key_states, value_states)
        for rows, new in zip(self._rows, (key_states, value_states), strict=True):
            rows.append(new)
        if self.positions is not None:
            b, heads, m, _ = key_states.shape
            new = torch.arange(self.seen, self.seen + m, device=self.device).expand(b, heads, m)
            self.positions = torch.cat([self.positions, new], dim=2)
        if not self.whole:
            with torch.no_grad():
                self.method.extend(self.side, key_states, self.seen)
        self.seen += key_states.shape[2]
        return self._views()

    def _placed(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Add one token where pages are placed; several, as of a further prompt, are added to everything held again."""
        if key_states.shape[2] > 1:
            self._gather()
            return self.update(key_states, value_states)
        assert self.placement is not None
        self.placement.append(key_states, value_states)
        self.method.extend(self.side, key_states, self.seen)
        self.seen += 1
        # Attention is told by the layer what it reads; these are the new token's own.
        self.keys, self.values = key_states, value_states
        self.keys.layer = self
        return self.keys, self.values

    def _gather(self) -> None:
        """Hold everything in one place again."""
        if self.placement is None:
            return
        whole, self.placement, self._steps = self.placement.whole(), None, 0
        self._rows = (Rows(), Rows())
        for rows, part in zip(self._rows, whole, strict=True):
            rows.append(part)

    def place(self, query: Tensor, mask: Tensor | None) -> bool:
        """Return whether pages are placed; those of more than the budget are, where the method does so."""
        if self.placement is None and self.method.places and not self.whole and self._rows[0].length > self.budget:
            newest = query if self._queries is None else torch.cat([self._queries, query], dim=2)[:, :, -_LAST:]
            with torch.no_grad():
                self.placement = self.method.place(self.held(mask), newest, self.budget)
            self._rows = (Rows(), Rows())
        return self.placement is not None

    def step(self, query: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a decode step attends to where pages are placed, and tell what that reads and moves."""
        assert self.placement is not None
        keys, values, valid = self.method.step(self.held(mask), self.placement, query, self.budget, self._steps)
        self._steps += 1
        b, _, k, _ = keys.shape
        if k > self.limit:
            raise RuntimeError(f"{type(self.method).__name__} chose {k} tokens of a budget of {self.limit}")
        self.tell(b, k, self.seen)
        self.watch.most = max(self.watch.most, k)
        self.watch.moved += self.placement.moved
        self.placement.moved = 0
        return keys, values, valid

    def _views(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (rows.view() for rows in self._rows)
        self.keys.layer = self
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return how many tokens were cached, forgotten ones included."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the logical length with so many queries, and the offset."""
        return self.seen + query_length, 0

    @property
    def budget(self) -> int:
        """Tokens that a decode step may read now, a KV head."""
        return int(self._budget(self.seen))

    @property
    def limit(self) -> int:
        """Tokens that a decode step may read now by the method: the budget, but for one that keeps what is generated."""
        return self.method.limit(self.budget, self.seen - self._prompt)

    def held(self, mask: Tensor | None) -> Held:
        """Return what there is; ``mask`` (b, 1, 1, seen) is True where a token counts, None where all do."""
        if self.placement is None:
            keys, values = (rows.view() for rows in self._rows)
        else:
            keys, values = self.keys, self.values
        b, heads, n = *keys.shape[:2], self.seen if self.placement is not None else keys.shape[2]
        if mask is None:
            valid = None
        elif self.positions is None:
            valid = mask[:, 0, :1, :].expand(b, heads, n)
        else:
            valid = torch.gather(mask[:, 0, :1, :].expand(b, heads, self.seen), 2, self.positions)
        return Held(keys, values, valid, self.side, self.index, self.scaling)

    def ask(self, queries: Tensor) -> None:
        """Note the queries (b, heads, m, d) of a part of the prompt."""
        last = queries[:, :, -_LAST:]
        self._queries = last if self._queries is None else torch.cat([self._queries, last], dim=2)[:, :, -_LAST:]

    def settle(self, mask: Tensor | None) -> None:
        """Let the method take note, once, that the prompt is read; the first new token is held by then."""
        if self.settled or self._queries is None:
            self.settled = True
            return
        if not self.whole:
            self.method.settle(self.held(mask), self._queries)
        self.settled, self._prompt = True, self.seen - 1

    def forget(self, mask: Tensor | None, *, prompt: bool) -> None:
        """Drop what the method does not keep within the budget."""
        if not self.method.evicts or self.whole or self._rows[0].length <= self.budget:
            return
        held = self.held(mask)
        kept = self.method.keep(held, self._queries if prompt else None, self.budget)
        if kept is None:
            return
        b, heads, n, _ = held.keys.shape
        if prompt:
            self.watch.estimated += b * self.method.votes(self.shape, n, self.budget)
        positions = self.positions
        if positions is None:
            positions = torch.arange(n, device=held.keys.device).expand(b, heads, n)
        self.positions = torch.gather(positions, 2, kept)
        for rows in self._rows:
            rows.replace(gathered(rows.view(), kept))
        self._views()

    def read(self, held: Held, chosen: Selection) -> tuple[Tensor, Tensor]:
        """Return the chosen keys and values (b, kv_heads, k, d), and tell what that reads.

        Raises:
            RuntimeError: More than the budget: an error of the method.
        """
        b, _, k = chosen.indices.shape
        if k > self.limit:
            raise RuntimeError(f"{type(self.method).__name__} chose {k} tokens of a budget of {self.limit}")
        self.tell(b, k, len(held.keys[0, 0]))
        self.watch.most = max(self.watch.most, k)
        return gathered(held.keys, chosen.indices), gathered(held.values, chosen.indices)

    def tell(self, rows: int, attended: int, held: int) -> None:
        """Tell what a decode step of so many rows reads, that attends to so many tokens of those held."""
        sparse = attended < held and not self.whole
        self.watch.attended += rows * attended
        self.watch.layers += rows
        self.watch.read += rows * attended * self.shape.token_bytes
        if sparse:
            self.watch.read += rows * self.method.reads(self.shape, held, attended)
            self.watch.estimated += rows * self.method.estimates(self.shape, held)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are held."""
        return sum(rows.nbytes for rows in self._rows) if self.placement is None else self.placement.nbytes

    @property
    def host_bytes(self) -> int:
        """Bytes of keys and values that are kept elsewhere than on the device."""
        return 0 if self.placement is None else self.placement.host_bytes

    @property
    def side_bytes(self) -> int:
        """Bytes that the method holds beside them."""
        return side_bytes(self.side)

    def crop(self, tokens_to_remove: int) -> None:
        """Take away that many tokens at the end, given as a negative number.

        Raises:
            ValueError: A positive number, or tokens of a cache that has forgotten some.
        """
        if tokens_to_remove > 0:
            raise ValueError("crop takes a negative number, of the tokens to take away")
        if tokens_to_remove == 0 or not self.is_initialized:
            return
        if self.positions is not None:
            raise ValueError(f"'{type(self.method).__name__.lower()}' has forgotten tokens, and cannot go back")
        self._gather()
        self.seen += tokens_to_remove
        for rows in self._rows:
            rows.crop(self.seen)
        if not self.whole:
            self.side = self.method.rebuilt(self.side, self._rows[0].view())
        self._views()

    def _take(self, index: Tensor) -> None:
        """Keep the batch rows at ``index``, of everything."""
        if not self.is_initialized:
            return
        for rows in self._rows:
            rows.rows(index)
        if self.placement is not None:
            self.placement.take(index)
        for name, part in self.side.items():
            if isinstance(part, Rows):
                part.rows(index)
            else:
                self.side[name] = part.index_select(0, index.to(part.device))
        if self.positions is not None:
            self.positions = self.positions.index_select(0, index.to(self.positions.device))
        if self._queries is not None:
            self._queries = self._queries.index_select(0, index.to(self._queries.device))
        if self.placement is None:
            self._views()

    @property
    def _batch(self) -> int:
        return len(self._rows[0].view()) if self.placement is None else len(self.placement.table)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the rows in the order of the beams that go on."""
        self._take(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        if self.is_initialized:
            rows = torch.arange(self._batch, device=self.device)
            self._take(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at ``indices``."""
        if self.is_initialized:
            rows = torch.arange(self._batch, device=self.device)
            self._take(rows[indices])
