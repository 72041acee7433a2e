"""Requests answered in batches by transformers' own generation, each of them counted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from apportion._errors import ApportionError, nearest
from apportion.budget.inference import InferenceBudget
from apportion.budget.prices import Prices
from apportion.budget.served import Meter, Served
from apportion.caches._cache import CacheMethod
from apportion.decoding.attach import BudgetedCache, budgeted_cache, cache_argument, kv_budget
from apportion.decoding.requests import Request

# New tokens of an answer, where the budget says nothing.
ANSWER = 128
# What of generation's settings is the budget's or ours.
_OURS = {"max_new_tokens", "max_length", "num_return_sequences", "pad_token_id", "use_cache", "return_dict_in_generate"}


@dataclass(frozen=True)
class Answered:
    """A request with the tokens of its answer, the end of text left out, and what it took."""

    request: Request
    ids: tuple[int, ...]
    text: str
    served: Served


class Engine:
    """A model, the way its cache is read, and the budget of a request.

    Args:
        model: A transformers causal language model.
        tokenizer: Its.
        prices: Of its passes.
        method: How its cache is read.
        budget: ``kv`` and ``answer`` bound what is read and written.
        batch_size: Requests answered at once.
        sampling: What `generate` takes beside: ``do_sample``, ``temperature``, ``num_beams``, ...

    Raises:
        ApportionError: A budget that the method cannot keep on this model, or a setting that generation does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prices: Prices,
        method: CacheMethod,
        budget: InferenceBudget,
        *,
        batch_size: int = 1,
        sampling: dict[str, Any] | None = None,
    ) -> None:
        self.model: Any
        self.tokenizer: Any
        self.model, self.tokenizer = model, tokenizer
        self.prices, self.method, self.budget, self.batch_size = prices, method, budget, batch_size
        self.sampling = {"do_sample": False, **(sampling or {})}
        self._given = sorted(sampling or {})
        known = GenerationConfig().to_dict().keys() - _OURS
        for key in self._given:
            if key not in known:
                raise ApportionError(f"Generation has no setting '{key}'{nearest(key, known)}.")
        budgeted_cache(self.model.config, method, budget.kv)
        ends: Any = self.model.generation_config.eos_token_id
        self._ends = [] if ends is None else ends if isinstance(ends, list) else [ends]

    def answer(self, requests: Sequence[Request], *, seed: int = 0, start: int = 0) -> Iterator[list[Answered]]:
        """Yield the answers batch by batch, in order; the draws of a batch follow from the seed and its place alone.

        Args:
            requests: All of them.
            seed: Of draws.
            start: How many are answered already, in whole batches.
        """
        for at in range(start, len(requests), self.batch_size):
            torch.manual_seed(seed * 1_000_003 + at)
            yield self._batch(requests[at : at + self.batch_size])

    @torch.no_grad()
    def _batch(self, requests: Sequence[Request]) -> list[Answered]:
        ids, mask = self._padded(requests)
        most = self.budget.answer or ANSWER
        with kv_budget(self.model, self.method, self.budget.kv) as cache:
            counting = _Counting([len(request.ids) for request in requests], ids.shape[1], self.prices, cache)
            with counting.told(self.model), self._refusing():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    **{cache_argument(self.model): cache},
                    max_new_tokens=most,
                    pad_token_id=self.tokenizer.pad_token_id,
                    **self.sampling,
                )
        written = out[:, ids.shape[1] :].tolist()
        return [
            self._answered(request, tokens, counting, row)
            for row, (request, tokens) in enumerate(zip(requests, written, strict=True))
        ]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Within the block, say in a sentence what transformers has against settings that were given."""
        try:
            yield
        except (ValueError, TypeError) as error:
            if not self._given:
                raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ApportionError(f"Generation refuses {', '.join(self._given)}: {said}.") from error

    def _answered(self, request: Request, tokens: list[int], counting: _Counting, row: int) -> Answered:
        end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        count = len(tokens) if end is None else end + 1
        shown = tokens if end is None else tokens[:end]
        text = self.tokenizer.decode(shown, skip_special_tokens=True)
        return Answered(request, tuple(shown), text, counting.served(row, count))

    def _padded(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
        longest = max(len(request.ids) for request in requests)
        pad = self.tokenizer.pad_token_id
        ids = [[pad] * (longest - len(request.ids)) + list(request.ids) for request in requests]
        mask = [[0] * (longest - len(request.ids)) + [1] * len(request.ids) for request in requests]
        device = next(self.model.parameters()).device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@dataclass(frozen=True)
class _Pass:
    """One pass over all rows: positions of each, attended positions and bytes of each row, seconds of the pass."""

    width: int
    attended: float
    read: int
    moved: int
    estimated: float
    resident: int
    side: int
    host: int
    seconds: float


class _Counting:
    """Notes each pass of a batch, and tells afterwards what each of its requests took of them.

    What a pass reads is shared out evenly among the rows that were in it. A row that has ended is padding from then on.
    """

    def __init__(self, prompts: Sequence[int], padded: int, prices: Prices, cache: BudgetedCache) -> None:
        self._prompts, self._padded, self._prices, self._cache = list(prompts), padded, prices, cache
        self._passes: list[_Pass] = []

    @contextmanager
    def told(self, model: nn.Module) -> Iterator[None]:
        """Note every pass of the model within the block."""
        started = [0.0]

        def before(*_: object, **__: object) -> None:
            started[0] = time.perf_counter()

        def after(module: nn.Module, args: Any, kwargs: dict[str, Any], output: object) -> None:  # noqa: ANN401
            given = kwargs.get("input_ids", args[0] if args else None)
            assert given is not None
            self._note(given.shape, time.perf_counter() - started[0])

        handles = [
            model.register_forward_pre_hook(before, with_kwargs=True),
            model.register_forward_hook(after, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, shape: Sequence[int], seconds: float) -> None:
        rows, width = shape
        seen = self._cache.watch.taken()
        layers = max(seen.layers / rows, 1)
        self._passes.append(
            _Pass(
                width=width,
                attended=seen.attended / rows / layers,
                read=round(seen.read / rows),
                moved=round(seen.moved / rows),
                estimated=seen.estimated / rows,
                resident=round(self._cache.resident / rows),
                side=round(self._cache.side / rows),
                host=round(self._cache.host / rows),
                seconds=seconds / rows,
            )
        )

    def served(self, row: int, generated: int) -> Served:
        """Return what the request in a row took that ended with so many generated tokens."""
        clock = [0.0]
        meter = Meter(self._prices, lambda: clock[0])
        prompt, width = self._prompts[row], 0
        steps = 0
        for made in self._passes:
            clock[0] += made.seconds
            width += made.width
            if width <= self._padded:
                # A part of the prompt: of a row that is padded, the positions behind its padding.
                before = max(width - made.width - (self._padded - prompt), 0)
                now = max(width - (self._padded - prompt), 0)
                meter.prefill(now - before, before, padded=made.width)
            elif steps < generated - 1:
                steps += 1
                meter.step(made.attended, padded=made.width)
                meter.estimated(made.estimated)
            else:
                meter.idle(made.width)
                continue
            meter.memory(resident=made.resident, side=made.side, host=made.host, read=made.read, moved=made.moved)
        for _ in range(generated):
            meter.token("answer")
        return meter.close()
