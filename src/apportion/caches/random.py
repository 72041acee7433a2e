"""Tokens drawn at random in every step: what a method must beat."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from apportion.caches._cache import CacheMethod, Held, Selection, best


class Random(CacheMethod):
    """Reads the newest token and others drawn at random, anew in each step, layer and KV head: a bound from below.

    The draw follows from ``seed``, the layer and the tokens held, so that a second identical request reads the same.

    Cost: a decode step reads the budget.
    """

    seed: int = Field(0, ge=0, lt=2**31)

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return a random choice."""
        b, heads, n, _ = held.keys.shape
        draws = torch.Generator().manual_seed(hash((self.seed, held.layer, n)) % 2**63)
        scores = torch.rand(b, heads, n, generator=draws).to(held.keys.device)
        return best(scores, held.valid, budget)
