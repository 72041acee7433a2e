"""The first few tokens and the newest ones: attention sinks (Xiao et al. 2023, arXiv 2309.17453)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from apportion.caches._cache import CacheMethod, Held, KvShape, Selection, ends


class Streaming(CacheMethod):
    """Keeps each row's first ``sinks`` tokens and the newest of the rest, and forgets what is between.

    Positions are as they were cached, with rotary applied, and not numbered anew inside the window as the paper does: that
    takes keys from before rotary.

    Cost: a decode step reads the budget.
    """

    evicts = True

    sinks: int = Field(4, ge=0)

    def check(self, shape: KvShape, budget: int) -> None:
        """Refuse a budget that the sinks alone fill."""
        if budget <= self.sinks:
            raise self.refusal(
                f"keeps {self.sinks} first tokens, and a budget of {budget} leaves none for the newest ones"
            )

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return all that is held: it is within the budget."""
        return ends(held, budget, self.sinks)

    def keep(self, held: Held, queries: Tensor | None, budget: int) -> Tensor | None:
        """Return the sinks and the newest."""
        return ends(held, budget, self.sinks).indices
