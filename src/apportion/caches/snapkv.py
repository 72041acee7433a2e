"""What the prompt's last queries looked at, chosen once at its end (after Li et al. 2024, arXiv 2404.14469)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from apportion.caches._cache import CacheMethod, Held, KvShape, Selection, best, ends


def votes(queries: Tensor, keys: Tensor, valid: Tensor | None, *, pooling: int, scaling: float) -> Tensor:
    """Return how much the last queries looked at each key, (b, kv_heads, n).

    The mean, over queries and the query heads of a KV head, of softmax(scaling q . k), each query over the keys up to its
    own; then the largest of ``pooling`` neighbours.

    Args:
        queries: (b, heads, w, d), of the last w keys.
        keys: (b, kv_heads, n, d).
        valid: (b, kv_heads, n), False for padding; None where there is none.
        pooling: Neighbours, the key itself in their middle: an odd number.
        scaling: Of the products, the model's.
    """
    b, heads, w, _ = queries.shape
    kv_heads, n = keys.shape[1:3]
    asked = queries.reshape(b, kv_heads, heads // kv_heads, w, -1)
    scores = (asked @ keys[:, :, None].transpose(3, 4)).float() * scaling
    seen = torch.ones(w, n, dtype=torch.bool, device=keys.device).tril(n - w)
    asking = None
    if valid is not None:
        # A query that is padding itself sees nothing and has no vote.
        seen = seen & valid[:, :, None, None, :]
        asking = valid[:, :, None, -w:, None]
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    if asking is not None:
        weights = torch.where(asking, weights, 0.0)
    return functional.max_pool1d(weights.mean((2, 3)), pooling, stride=1, padding=pooling // 2)


class Snapkv(CacheMethod):
    """Keeps, of the prompt, its last ``window`` tokens and those that their queries looked at most, and forgets the rest.

    Votes are the mean over the window's queries and the query heads of a KV head of softmax(q . k / sqrt(d)), of which each
    token gets the largest among ``pooling`` neighbours. They are taken once, at the end of the prompt.

    ``generated: window`` lets the window move on with what is generated, so that the budget holds. ``keep`` keeps all that
    is generated: the budget is then the prompt's, and what is read grows beyond it.

    Cost: 2 w H d n FLOPs a layer, once; a decode step reads the budget, with ``keep`` the generated tokens too.
    References: Li et al. 2024, arXiv 2404.14469.
    Departures: a KV head's query heads vote together, where the paper has no grouped heads. The default holds the budget;
        the paper's way is ``generated: keep``.
    """

    evicts = True

    window: int = Field(32, ge=1, le=32)
    pooling: int = Field(7, ge=1)
    generated: Literal["window", "keep"] = "window"

    @field_validator("pooling")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be an odd number: the token itself stands in the middle")
        return value

    def check(self, shape: KvShape, budget: int) -> None:
        """Refuse a budget that the window alone fills."""
        if budget <= self.window:
            raise self.refusal(
                f"keeps a window of {self.window} tokens, and a budget of {budget} leaves none for others: "
                "set 'window' lower or the budget higher"
            )

    def limit(self, budget: int, generated: int) -> int:
        """Return the budget, and with ``keep`` what is generated beside it."""
        return budget + generated if self.generated == "keep" else budget

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return all that is held: it is within the budget."""
        return self._kept(held, None, budget)

    def keep(self, held: Held, queries: Tensor | None, budget: int) -> Tensor | None:
        """Return what is voted for and the window; later the same with the window moved on, or nothing to forget."""
        if self.generated == "keep":
            return None if queries is None else self._kept(held, queries, budget + 1).indices
        return self._kept(held, queries, budget).indices

    def _kept(self, held: Held, queries: Tensor | None, budget: int) -> Selection:
        window = min(self.window + (self.generated == "keep"), budget)
        if queries is None:
            return ends(held, budget, budget - window)
        # The newest token is generated already: the votes are the prompt's.
        valid = None if held.valid is None else held.valid[..., :-1]
        found = votes(
            queries[:, :, -self.window :], held.keys[:, :, :-1], valid, pooling=self.pooling, scaling=held.scaling
        )
        scores = functional.pad(found, (0, 1))
        return best(scores, held.valid, min(budget, scores.shape[2]), newest=window)

    def votes(self, shape: KvShape, held: int, budget: int) -> float:
        """Return the FLOPs of the window's queries with all keys."""
        return 2.0 * self.window * shape.heads * shape.head * held
