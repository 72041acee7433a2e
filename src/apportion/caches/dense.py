"""Everything is read: the reference, and the honest baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.caches._cache import CacheMethod, Held, Selection


class Dense(CacheMethod):
    """Reads all cached tokens, whatever the budget: it is what others are measured against.

    Cost: a decode step reads all keys and values.
    """

    reads_less = False

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return everything that is not padding."""
        b, heads, n, _ = held.keys.shape
        indices = torch.arange(n, device=held.keys.device).expand(b, heads, n)
        return Selection(indices, held.valid)
