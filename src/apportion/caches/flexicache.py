"""FlexiCache: heads whose best pages stay the same keep those alone on the device (arXiv 2511.00868)."""

from __future__ import annotations

import json
import math
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from apportion._errors import ApportionError
from apportion.caches._cache import CacheMethod, Held, KvShape, Selection, Side, grouped, rows_of
from apportion.caches._kernels import largest
from apportion.caches._placement import Placement
from apportion.caches.quest import Quest, page_scores


def overlap(first: Tensor, second: Tensor, pages: int) -> Tensor:
    """Return the rank-corrected overlap of two sets of page numbers (..., k), out of so many pages: (...).

    RCO = |A intersect B| / k - k / pages, the overlap less what random sets have; 1 - k / pages for the same set.
    """
    k = first.shape[-1]
    same = (first[..., :, None] == second[..., None, :]).any(-1).sum(-1)
    return same / k - k / pages


class Flexicache(CacheMethod):
    """Ranks pages as Quest does: *unstable* heads every step, *stable* ones every ``interval`` steps.

    A stable head keeps budget / page pages on the device and everything on the host. What is promoted is fetched, what is
    demoted is given up; each page is written to the host once. Nothing is ever lost. Which heads are unstable belongs to
    the model: ``profile`` names the file of `apportion profile`, and the ``unstable`` share of all heads that is the least
    stable there keeps everything on the device.

    Shapes: pages of ``page`` tokens. The first page and the one that is being filled are always resident.
    Cost: a decode step reads the budget, and the bounds of all pages for unstable heads, for stable ones every ``interval``.
        Resident: f + (1 - f) K / N of the keys and values for a share f of unstable heads and K of N pages, and 1 / page
        of them for the bounds of all pages.
    References: arXiv 2511.00868, sections 3 and 4.
    Departures: without a ``profile`` the heads of each layer are told apart by the prompt's last queries: those whose best
        pages changed most. The paper profiles offline, and publishes no profiler.
    """

    places = True

    page: int = Field(16, ge=1)
    interval: int = Field(16, ge=1)
    unstable: float = Field(0.25, ge=0, le=1)
    profile: str | None = None

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return self.page

    def check(self, shape: KvShape, budget: int) -> None:
        """Refuse a budget of fewer than two pages, and a profile of another model."""
        if budget < 2 * self.page:
            raise self.refusal(
                f"keeps the first page and the newest one, of {self.page} tokens each: a budget of {budget} tokens is too "
                "small"
            )
        if self.profile is not None:
            found = {(int(head["layer"]), int(head["head"])) for head in self._profiled}
            if len(found) != shape.layers * shape.kv_heads:
                raise self.refusal(
                    f"reads the profile '{self.profile}' of a model with {len(found)} heads, and this one has "
                    f"{shape.layers * shape.kv_heads}"
                )

    @cached_property
    def _quest(self) -> Quest:
        return Quest(page=self.page, dense_layers=0)

    @cached_property
    def _profiled(self) -> list[dict[str, Any]]:
        try:
            heads: list[dict[str, Any]] = json.loads(Path(str(self.profile)).read_text("utf-8"))["heads"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ApportionError(
                f"'{self.profile}' is no profile: 'apportion profile MODEL_OR_RUN --out FILE' writes one."
            ) from None
        return heads

    @cached_property
    def _listed(self) -> dict[int, list[int]]:
        """The unstable heads of each layer, by the profile."""
        ranked = sorted(self._profiled, key=lambda head: head["stability"])
        found: dict[int, list[int]] = {}
        for head in ranked[: round(self.unstable * len(ranked))]:
            found.setdefault(int(head["layer"]), []).append(int(head["head"]))
        return found

    def extend(self, side: Side, keys: Tensor, start: int) -> None:
        """Widen the bounds of pages."""
        self._quest.extend(side, keys, start)

    def place(self, held: Held, queries: Tensor, budget: int) -> Placement:
        """Return where the pages go from now on; ``queries`` (b, heads, w, d) are the newest."""
        pages = budget // self.page
        kv_heads = held.keys.shape[1]
        ranked = self._rank(held, queries[:, :, -1:], pages)
        unstable = torch.zeros(kv_heads, dtype=torch.bool, device=held.keys.device)
        if self.profile is not None:
            unstable[self._listed.get(held.layer, [])] = True
        else:
            changing = self._changes(held, queries, pages)
            unstable[changing.argsort(descending=True)[: round(self.unstable * kv_heads)]] = True
        return Placement(held.keys, held.values, unstable, ranked[:, ~unstable], self.page)

    def _changes(self, held: Held, queries: Tensor, pages: int) -> Tensor:
        """Return how much each head's best pages change from one of the newest queries to the next, (kv_heads,)."""
        sets = [self._rank(held, queries[:, :, i : i + 1], pages) for i in range(queries.shape[2])]
        total = rows_of(held.side, "minima").view().shape[2]
        kept = [overlap(a, b, total).mean(0) for a, b in pairwise(sets)]
        return -torch.stack(kept).mean(0) if kept else torch.zeros(held.keys.shape[1])

    def _rank(self, held: Held, query: Tensor, pages: int) -> Tensor:
        """Return the best pages (b, kv_heads, pages), the best first; the newest and the first are."""
        minima, maxima = rows_of(held.side, "minima").view(), rows_of(held.side, "maxima").view()
        scores = page_scores(grouped(query, minima.shape[1]), minima, maxima).float()
        if held.valid is not None:
            n = held.valid.shape[2]
            filled = torch.nn.functional.pad(held.valid, (0, minima.shape[2] * self.page - n))
            scores = scores.masked_fill(~filled.unflatten(2, (-1, self.page)).any(3), -torch.inf)
        scores[..., 0], scores[..., -1] = torch.finfo(scores.dtype).max, torch.inf
        return largest(scores, min(pages, scores.shape[2]), ranked=True)

    def step(
        self, held: Held, placement: Placement, query: Tensor, budget: int, number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a decode step attends to: keys and values (b, kv_heads, k, d), and which counts (b, kv_heads, k)."""
        pages, unstable = budget // self.page, placement.unstable
        due = number % self.interval == 0
        order = self._rank(held, query, pages) if due or bool(unstable.any()) else None
        if due and number and order is not None:
            placement.rank(order[:, ~unstable])
        keys, values, places = placement.resident()
        b, heads = query.shape[0], len(unstable)
        out_keys = keys.new_empty((b, heads, pages * self.page, keys.shape[-1]))
        out_values, tokens = out_keys.clone(), places.new_empty((b, heads, pages * self.page))
        out_keys[:, ~unstable], out_values[:, ~unstable], tokens[:, ~unstable] = keys, values, places
        if order is not None and bool(unstable.any()):
            inside = torch.arange(self.page, device=order.device)
            asked = (order[:, unstable][..., None] * self.page + inside).flatten(2)
            found = asked.clamp(max=placement.length - 1)
            index = found[..., None].expand(*found.shape, keys.shape[-1])
            own_keys, own_values = (rows.view() for rows in placement.device_rows)
            out_keys[:, unstable] = torch.gather(own_keys, 2, index)
            out_values[:, unstable] = torch.gather(own_values, 2, index)
            tokens[:, unstable] = asked
        valid = tokens < placement.length
        if held.valid is not None:
            valid = valid & torch.gather(held.valid, 2, tokens.clamp(max=placement.length - 1))
        return out_keys, out_values, valid

    def select(self, held: Held, query: Tensor, budget: int) -> Selection:
        """Return what Quest would: where nothing is placed."""
        return self._quest.select(held, query, budget)

    def reads(self, shape: KvShape, held: int, budget: int) -> int:
        """Return the bytes of the bounds: of all pages for unstable heads, of the others one step in ``interval``."""
        share = self.unstable + (1 - self.unstable) / self.interval
        return round(share * self._quest.reads(shape, held, budget))

    def kept(self, shape: KvShape, held: int, budget: int) -> int:
        """Return the bytes of everything for unstable heads and of the budget's pages for others: a mean over layers."""
        if held <= budget:
            return held * shape.token_bytes
        heads = float(round(self.unstable * shape.kv_heads))
        if self.profile is not None:
            heads = round(self.unstable * len(self._profiled)) / shape.layers
        tokens = heads * held + (shape.kv_heads - heads) * (budget // self.page * self.page)
        return math.ceil(tokens * shape.token_bytes / shape.kv_heads)

    def beside(self, shape: KvShape, held: int) -> int:
        """Return the bytes of the bounds of all pages."""
        return self._quest.beside(shape, held)

    def estimates(self, shape: KvShape, held: int) -> float:
        """Return the FLOPs of the page scores, on average over steps."""
        return (self.unstable + (1 - self.unstable) / self.interval) * self._quest.estimates(shape, held)
