"""How long each head's best pages stay the same while a model answers with its whole cache."""

from __future__ import annotations

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from apportion.caches._cache import CacheMethod, Held, Side, grouped, rows_of
from apportion.caches._kernels import largest
from apportion.caches.flexicache import overlap
from apportion.caches.quest import Quest, page_scores


class Stability(CacheMethod):
    """Reads everything, and notes in each decode step the ``pages`` that score highest in each KV head.

    Temporal stability is the mean over steps t of the rank-corrected overlap of the best pages at t and at t + ``interval``:
    what a head loses that is ranked every ``interval`` steps only.

    References: arXiv 2511.00868, section 3; RCO as in `apportion.caches.flexicache.overlap`.
    """

    page: int = Field(16, ge=1)
    pages: int = Field(16, ge=1)
    interval: int = Field(16, ge=1)

    _seen: dict[int, list[tuple[Tensor, int]]] = PrivateAttr(default_factory=dict)
    _found: dict[int, list[tuple[Tensor, Tensor]]] = PrivateAttr(default_factory=dict)

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return self.page

    def extend(self, side: Side, keys: Tensor, start: int) -> None:
        """Widen the bounds of pages."""
        Quest(page=self.page, dense_layers=0).extend(side, keys, start)

    def look(self, held: Held, query: Tensor) -> None:
        """Note the best pages of a step, and how many of those of ``interval`` steps ago are among them."""
        minima, maxima = rows_of(held.side, "minima").view(), rows_of(held.side, "maxima").view()
        total = minima.shape[2]
        if total <= self.pages:
            return  # all pages are the best ones
        scores = page_scores(grouped(query, minima.shape[1]), minima, maxima).float()
        seen = self._seen.setdefault(held.layer, [])
        seen.append((largest(scores, self.pages, ranked=True), total))
        if len(seen) > self.interval:
            before, _ = seen.pop(0)
            found = overlap(before, seen[-1][0], total)
            self._found.setdefault(held.layer, []).append((found.cpu(), (found / (1 - self.pages / total)).cpu()))

    def begin(self) -> None:
        """Begin another text: its steps are not compared with those of the one before."""
        self._seen.clear()

    def heads(self) -> list[dict[str, float]]:
        """Return each layer's heads, with their ``stability``, the same as a ``share`` of what it can be, and the steps."""
        rows = []
        for layer, found in sorted(self._found.items()):
            plain, share = (torch.cat([part[i] for part in found]).mean(0) for i in (0, 1))
            rows += [
                {"layer": layer, "head": head, "stability": float(a), "share": float(b), "steps": len(found)}
                for head, (a, b) in enumerate(zip(plain, share, strict=True))
            ]
        return rows
