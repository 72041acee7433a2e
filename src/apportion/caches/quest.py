"""Quest: pages of the cache, ranked by a bound of what any of their keys can score (Tang et al. 2024, arXiv 2406.10774)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from apportion.caches._cache import CacheMethod, Held, KvShape, Selection, Side, grouped, rows_of
from apportion.caches._kernels import largest


def page_scores(query: Tensor, minima: Tensor, maxima: Tensor) -> Tensor:
    """Return each page's score (b, kv_heads, pages), summed over the queries (b, kv_heads, group, d) of a KV head.

    sum_c max(q_c min_c, q_c max_c) is at least q . k for every key of the page. A positive coordinate takes the maximum and
    a negative one the minimum, so that the sum over queries is two products.
    """
    upper, lower = (part.sum(2, keepdim=True).to(maxima.dtype) for part in (query.clamp(min=0), query.clamp(max=0)))
    return (maxima @ upper.transpose(2, 3) + minima @ lower.transpose(2, 3)).squeeze(3)


class Quest(CacheMethod):
    """Keeps everything, and reads the pages whose bound is highest: ceil(budget / page) of them, the newest page always.

    A page's score is sum_c max(q_c min_c, q_c max_c) over its keys' minima and maxima, summed over the queries of a KV head.

    Shapes: pages of ``page`` tokens from the first position on, padding included, which is never read.
    Cost: a decode step reads two numbers a page and coordinate, and the budget. Side data: 2 / page of the keys' bytes.
    References: Tang et al. 2024, arXiv 2406.10774, algorithm 1.
    Departures: grouped queries share a selection. The newest page is always read. Where whole pages would be more than the
        budget, of the last page chosen only the newest tokens are read; where the newest page is not full, less is read.
        ``dense_layers`` is the paper's, of which what is read is counted.
    """

    dense_layers: int = Field(2, ge=0)
    page: int = Field(16, ge=1)

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return self.page

    def extend(self, side: Side, keys: Tensor, start: int) -> None:
        """Widen the bounds of the page that is being filled, and begin others."""
        minima, maxima = rows_of(side, "minima"), rows_of(side, "maxima")
        room = min(-start % self.page, keys.shape[2])
        if room:
            first, least, most = keys[:, :, :room], minima.view()[:, :, -1], maxima.view()[:, :, -1]
            torch.minimum(least, first.amin(2), out=least)
            torch.maximum(most, first.amax(2), out=most)
        rest = keys[:, :, room:]
        whole = rest.shape[2] // self.page * self.page
        if whole:
            pages = rest[:, :, :whole].unflatten(2, (-1, self.page))
            minima.append(pages.amin(3))
            maxima.append(pages.amax(3))
        if whole < rest.shape[2]:
            minima.append(rest[:, :, whole:].amin(2, keepdim=True))
            maxima.append(rest[:, :, whole:].amax(2, keepdim=True))

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return the tokens of the best pages."""
        scores = page_scores(
            grouped(query, held.keys.shape[1]), rows_of(held.side, "minima").view(), rows_of(held.side, "maxima").view()
        ).float()
        scores[..., -1] = torch.inf
        pages = scores.shape[2]
        if held.valid is not None:
            n = held.keys.shape[2]
            filled = torch.nn.functional.pad(held.valid, (0, pages * self.page - n))
            scores = scores.masked_fill(~filled.unflatten(2, (pages, self.page)).any(3), -torch.inf)
        order = largest(scores, min(-(-budget // self.page), pages), ranked=True)
        return self._tokens(held, order, budget)

    def _tokens(self, held: Held, order: Tensor, budget: int) -> Selection:
        """Return the tokens of pages (b, kv_heads, p), the best page first, each from its end, as far as the budget goes."""
        n = held.keys.shape[2]
        places = torch.arange(self.page - 1, -1, -1, device=order.device)
        tokens = (order[..., None] * self.page + places).flatten(2)
        # The newest page comes first, and what it has no tokens for yet stands at its start.
        tokens = tokens[..., -n % self.page :]
        if held.valid is None:
            return Selection(tokens[..., :budget].sort(dim=2).values, None)
        taken = torch.gather(held.valid, 2, tokens)
        # Fillings go behind, and so may be cut off: what is left of each row is at most the budget.
        behind = (~taken).to(torch.int8).sort(dim=2, stable=True).indices[..., :budget]
        chosen = torch.gather(tokens, 2, behind).sort(dim=2).values
        return Selection(chosen, torch.gather(held.valid, 2, chosen))

    def beside(self, shape: KvShape, held: int) -> int:
        """Return the bytes of all minima and maxima."""
        return -(-held // self.page) * shape.token_bytes

    def estimates(self, shape: KvShape, held: int) -> float:
        """Return the FLOPs of the page scores: two products of each query with each page."""
        return 4.0 * shape.heads * shape.head * -(-held // self.page)
