"""Requests answered in batches by transformers' own generation, each of them counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteriaList

from apportion._errors import ApportionError, nearest
from apportion.budget.inference import InferenceBudget
from apportion.budget.prices import Prices
from apportion.budget.served import Served
from apportion.budget.thinking import ThinkingBudget
from apportion.caches._cache import CacheMethod
from apportion.decoding.attach import budgeted_cache, cache_argument, kv_budget
from apportion.decoding.counting import Counting
from apportion.decoding.holding import Stops, asked_last
from apportion.decoding.requests import Request
from apportion.decoding.terms import Terms
from apportion.thinking.forcer import ThinkingForcer
from apportion.thinking.rounds import think_in_rounds
from apportion.thinking.tags import TagIds
from apportion.thinking.thought import Kind, Thought, split

# What of generation's settings is the budget's or ours.
_OURS = {"max_new_tokens", "max_length", "num_return_sequences", "pad_token_id", "use_cache", "return_dict_in_generate"}


@dataclass(frozen=True)
class Answered:
    """A request with what was written, and what it took.

    Attributes:
        request: The request, its tokens as the model read them: with the open tag, where it was to think.
        ids, text: The answer, the end of text left out.
        served: What it took.
        written: All tokens that were generated, the end of text among them.
        kinds: Of each of them: ``thinking``, ``answer`` or ``inserted``.
        thinking, thinking_ids: What stands before the close tag.
        closed: Whether a close tag ended the thinking.
        forced: Whether that was forced, or a part of it.
    """

    request: Request
    ids: tuple[int, ...]
    text: str
    served: Served
    written: tuple[int, ...]
    kinds: tuple[Kind, ...]
    thinking: str = ""
    thinking_ids: tuple[int, ...] = ()
    closed: bool = False
    forced: bool = False


class Engine:
    """A model, the way its cache is read, and the budget of a request.

    Args:
        model: A transformers causal language model.
        tokenizer: Its.
        prices: Of its passes.
        method: How its cache is read.
        budget: ``kv`` bounds what is read, ``thinking`` and ``answer`` what is written, ``resident`` and ``total`` where
            a request ends. With ``thinking`` prompts end in the open tag, which is added where it is missing.
        batch_size: Requests answered at once.
        sampling: What `generate` takes beside: ``do_sample``, ``temperature``, ``num_beams``, ...
        tags: Of thinking; needed with ``budget.thinking``.

    Raises:
        ApportionError: A budget that the method cannot keep on this model, tags that it cannot be held with, or a
            setting that generation does not have.
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
        tags: TagIds | None = None,
    ) -> None:
        self.model: Any
        self.tokenizer: Any
        self.model, self.tokenizer = model, tokenizer
        self.prices, self.method, self.budget, self.batch_size, self.tags = prices, method, budget, batch_size, tags
        self.sampling = {"do_sample": False, **(sampling or {})}
        self._given = sorted(sampling or {})
        known = GenerationConfig().to_dict().keys() - _OURS
        for key in self._given:
            if key not in known:
                raise ApportionError(f"Generation has no setting '{key}'{nearest(key, known)}.")
        cache = budgeted_cache(self.model.config, method, budget.kv)
        ends: Any = self.model.generation_config.eos_token_id
        self._ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        beams = self.sampling.get("num_beams") or 1
        self._terms = Terms(budget, tags, prices, cache, positions, self._ends, beams)

    def answer(self, requests: Sequence[Request], *, seed: int = 0, start: int = 0) -> Iterator[list[Answered]]:
        """Return the answers batch by batch, in order; the draws of a batch follow from the seed and its place alone.

        The process's own generator of random numbers is left as it is.

        Args:
            requests: All of them.
            seed: Of draws.
            start: How many are answered already, in whole batches.

        Raises:
            ApportionError: Before anything is answered: a prompt that is over ``resident`` or ``total`` already, or a
                request's own ``thinking`` that it cannot be held to.
        """
        opened = [self._terms.opened(request) for request in requests]
        places = range(start, len(requests), self.batch_size)
        for at in places:
            batch = opened[at : at + self.batch_size]
            for number, (request, (room, key)) in enumerate(zip(batch, self._terms.rooms(batch), strict=True), at + 1):
                if room < 1:
                    raise ApportionError(
                        f"Prompt {number} has {len(request.ids):,} tokens, and is over 'inference.{key}' already, which is "
                        f"{getattr(self.budget, key)}: shorten it, or give it more."
                    )
        return self._answers(opened, places, seed)

    def _answers(self, requests: Sequence[Request], places: Sequence[int], seed: int) -> Iterator[list[Answered]]:
        device = next(self.model.parameters()).device
        for at in places:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed * 1_000_003 + at)
                batch = self._batch(requests[at : at + self.batch_size])
            yield batch

    @torch.no_grad()
    def _batch(self, requests: Sequence[Request]) -> list[Answered]:
        rooms = [room for room, _ in self._terms.rooms(requests)]
        budgets = [request.thinking for request in requests if request.thinking is not None]
        if any(self._terms.rounds(budget) for budget in budgets):
            return self._in_rounds(requests, rooms, budgets)
        written, counting, forcer = self._pass(requests, rooms, [[] for _ in requests], budgets)
        found = []
        for row, (request, tokens) in enumerate(zip(requests, written, strict=True)):
            thought = self._thought(request, tokens, forcer.put_off(row) if forcer is not None else ())
            found.append(self._answered(request, tokens, thought, counting.served(row, len(tokens), thought.kinds)))
        return found

    def _in_rounds(
        self, requests: Sequence[Request], rooms: Sequence[int], budgets: Sequence[ThinkingBudget]
    ) -> list[Answered]:
        """Answer where a tag of several tokens is put off; each round reads the text again, which is ``wasted``."""
        took: dict[int, Served] = {}

        def write(rows: Sequence[int], texts: Sequence[Sequence[int]], early: Sequence[bool]) -> list[list[int]]:
            most, given = [ThinkingBudget(most=budgets[row].most) for row in rows], [requests[row] for row in rows]
            written, counting, _ = self._pass(given, [rooms[row] for row in rows], texts, most, early)
            for place, row in enumerate(rows):
                again = row in took
                part = counting.served(place, len(written[place]) - len(texts[place]), again=again)
                took[row] = took[row] + replace(part, requests=0) if again else part
            return written

        found = []
        for row, done in enumerate(think_in_rounds(write, budgets, self._terms.forced)):
            thought = self._thought(requests[row], done.written, done.put_off)
            counts: dict[str, Any] = {kind: thought.kinds.count(kind) for kind in ("thinking", "answer", "inserted")}
            found.append(self._answered(requests[row], done.written, thought, replace(took[row], **counts)))
        return found

    def _pass(
        self,
        requests: Sequence[Request],
        rooms: Sequence[int],
        written: Sequence[Sequence[int]],
        budgets: Sequence[ThinkingBudget],
        early: Sequence[bool] | None = None,
    ) -> tuple[list[list[int]], Counting, ThinkingForcer | None]:
        """Write on in a batch; returns all that each row has written then."""
        texts = [[*request.ids, *tokens] for request, tokens in zip(requests, written, strict=True)]
        ids, mask = self._padded(texts)
        width, drawn = ids.shape[1], bool(self.sampling["do_sample"])
        starts, forcer = [width - len(tokens) for tokens in written], None
        if budgets:
            forcer = ThinkingForcer(self._terms.forced, starts, budgets, ends=self._ends, sampling=drawn)
        stops = Stops(starts, rooms, forcer, self._terms.answer, early)
        with kv_budget(self.model, self.method, self.budget.kv) as cache, asked_last(self.model, forcer):
            counting = Counting([len(text) for text in texts], width, self.prices, cache)
            with counting.told(self.model), self._refusing():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    **{cache_argument(self.model): cache},
                    max_new_tokens=max(max(room + start for room, start in zip(rooms, starts, strict=True)) - width, 1),
                    pad_token_id=self.tokenizer.pad_token_id,
                    stopping_criteria=StoppingCriteriaList([stops]),
                    **self.sampling,
                )
        found = []
        for row, tokens in enumerate(out[:, width:].tolist()):
            end = next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))
            most = budgets[row].most if budgets else None
            found.append(stops.kept(row, [*written[row], *tokens[: end + 1]], most))
        return found, counting, forcer

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Within the block, say in a sentence what transformers has against settings that were given."""
        try:
            yield
        except (ValueError, TypeError, NotImplementedError) as error:
            if not self._given:
                raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ApportionError(f"Generation refuses {', '.join(self._given)}: {said}.") from error

    def _thought(self, request: Request, written: Sequence[int], put_off: Collection[int]) -> Thought:
        if request.thinking is None:
            kinds: list[Kind] = ["answer"] * len(written)
            return Thought(tuple(kinds), (), tuple(written), closed=False, forced=False)
        return split(written, self._terms.forced, request.thinking, put_off)

    def _answered(self, request: Request, written: Sequence[int], thought: Thought, served: Served) -> Answered:
        ids = thought.answer[:-1] if thought.answer and thought.answer[-1] in self._ends else thought.answer
        answer, thinking = (self.tokenizer.decode(part, skip_special_tokens=True) for part in (ids, thought.thinking))
        return Answered(
            request=request,
            ids=ids,
            text=answer,
            served=served,
            written=tuple(written),
            kinds=thought.kinds,
            thinking=thinking,
            thinking_ids=thought.thinking,
            closed=thought.closed,
            forced=thought.forced,
        )

    def _padded(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, texts))
        pad = self.tokenizer.pad_token_id
        ids = [[pad] * (longest - len(text)) + list(text) for text in texts]
        mask = [[0] * (longest - len(text)) + [1] * len(text) for text in texts]
        device = next(self.model.parameters()).device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
