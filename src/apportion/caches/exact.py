"""The tokens with the most attention: what any method of choosing so many can at best choose."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.caches._cache import CacheMethod, Held, KvShape, Selection, best, grouped


def masses(query: Tensor, keys: Tensor, valid: Tensor | None, scaling: float) -> Tensor:
    """Return each key's attention summed over the query heads of its KV head, (b, kv_heads, n).

    Args:
        query: (b, kv_heads, group, d).
        keys: (b, kv_heads, n, d).
        valid: (b, kv_heads, n), False for padding; None where there is none.
        scaling: Of the products, the model's.
    """
    scores = (query @ keys.transpose(2, 3)).float() * scaling
    if valid is not None:
        scores = scores.masked_fill(~valid[:, :, None], -torch.inf)
    return scores.softmax(-1).sum(2)


class Exact(CacheMethod):
    """Reads the tokens that attention weighs most, the newest one always: a bound, which reads all keys to find them.

    Ranked by softmax(q . k), as the model scales it, summed over a KV head's query heads: no other choice of as many tokens
    has more of their attention.

    Cost: a decode step reads all keys, and the budget; 2 H d n FLOPs a layer. It saves nothing.
    """

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return the tokens with the most attention."""
        scores = masses(grouped(query, held.keys.shape[1]), held.keys, held.valid, held.scaling)
        return best(scores, held.valid, budget)

    def reads(self, shape: KvShape, held: int, budget: int) -> int:
        """Return the bytes of all keys."""
        return held * shape.token_bytes // 2

    def estimates(self, shape: KvShape, held: int) -> float:
        """Return the FLOPs of a query with all keys."""
        return 2.0 * shape.heads * shape.head * held
