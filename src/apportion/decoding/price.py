"""What a request will take, before it is served: replayed through the meter that counts it, with no tensor made."""

from __future__ import annotations

from dataclasses import dataclass

from apportion.budget.inference import InferenceBudget
from apportion.budget.prices import Prices
from apportion.budget.served import Meter, Served
from apportion.decoding.attach import BudgetedCache
from apportion.decoding.requests import ANSWER

# What a request runs into at the same token, in this order.
_KEYS = ("prompt", "resident", "total", "kv", "thinking", "answer")


@dataclass(frozen=True)
class Priced:
    """A request that is answered at full length, and the keys of its budget that bind, the first one first.

    ``binds`` maps a key to how many tokens are generated before it does; 0 is at the prompt.
    """

    served: Served
    binds: dict[str, int]


def price(cache: BudgetedCache, prices: Prices, prompt: int, budget: InferenceBudget, *, inserted: int = 0) -> Priced:
    """Price a request of ``prompt`` tokens, alone in its batch, whose thinking and answer are as long as they may be.

    What is read and kept is exact for `dense` and `streaming`, and never less than what others will take. Bytes on the host
    and moved there are left out.

    Args:
        cache: Empty, of the model and the method; it says how much is read and stays as it is.
        prices: Of the model's passes.
        prompt: Its tokens.
        budget: ``thinking`` and ``answer`` are generated in full; the other keys are held against what that takes.
        inserted: Tokens that are forced between the two.
    """
    replay = _Replay(cache, prices, prompt, prompt)
    binds: dict[str, int] = {}
    if budget.prompt is not None and prompt >= budget.prompt:
        binds["prompt"] = 0
    thinking, answer = budget.most_thinking, ANSWER if budget.answer is None else budget.answer
    for generated in range(max(thinking + inserted + answer, 1)):
        less = replay.step() if generated else False
        if less:
            binds.setdefault("kv", generated)
        for key in _exceeded(replay, budget, prompt + generated + 1):
            binds.setdefault(key, generated)
    for key, tokens in (("thinking", thinking), ("answer", thinking + inserted + answer)):
        if getattr(budget, key) is not None:
            binds[key] = tokens
    for kind, count in (("thinking", thinking), ("inserted", inserted), ("answer", answer)):
        for _ in range(count):
            replay.meter.token(kind)
    return Priced(replay.meter.close(), dict(sorted(binds.items(), key=lambda item: (item[1], _KEYS.index(item[0])))))


def affordable(
    cache: BudgetedCache, prices: Prices, prompt: int, budget: InferenceBudget, most: int, *, padded: int
) -> tuple[int, str]:
    """Return how many of ``most`` tokens a request may be answered with before a key of its budget is passed, and which.

    Only ``resident`` and ``total`` are looked at. As in `price`, what a method takes is never more.

    Args:
        cache: Empty, of the model and the method.
        prices: Of the model's passes.
        prompt: Its tokens.
        budget: Of the request.
        most: What its other keys leave.
        padded: Tokens of the longest prompt in its batch: the cache holds padding too.
    """
    if budget.resident is None and budget.total is None:
        return most, "answer"
    replay = _Replay(cache, prices, prompt, padded)
    for generated in range(most):
        if generated:
            replay.step()
        if passed := _exceeded(replay, budget, prompt + generated + 1):
            return generated, passed[0]
    return most, "answer"


def _exceeded(replay: _Replay, budget: InferenceBudget, tokens: int) -> list[str]:
    found = []
    if budget.resident is not None and replay.resident > budget.resident.count:
        found.append("resident")
    if budget.total is not None:
        spent = tokens if budget.total.unit == "tokens" else replay.meter.close().flops
        if spent > budget.total.amount:
            found.append("total")
    return found


class _Replay:
    """A request's passes, one by one, by what layers hold: those that are read whole, sliding ones, and the others."""

    def __init__(self, cache: BudgetedCache, prices: Prices, prompt: int, padded: int) -> None:
        self._cache = cache
        layers = cache.budgeted
        self._whole = sum(layer.whole for layer in layers)
        self._sparse = len(layers) - self._whole
        # A sliding layer keeps what the next token's window reaches back to.
        self._windows = [layer.sliding_window - 1 for layer in cache.layers if layer not in layers]
        self._seen, self._held, self._steps = padded, padded, 0
        self.meter = Meter(prices, lambda: 0.0)
        self.meter.prefill(prompt)
        self.resident = 0
        self._note(self._held * cache.shape.token_bytes, 0)

    def step(self) -> bool:
        """Make a decode step, and return whether it reads less than everything."""
        method, shape = self._cache.method, self._cache.shape
        self._seen, self._held, self._steps = self._seen + 1, self._held + 1, self._steps + 1
        budget = self._cache.budget(self._seen)
        limit = method.limit(budget, self._steps)
        estimated = 0.0
        if method.evicts and self._held > budget:
            if self._steps == 1:
                estimated += self._sparse * method.votes(shape, self._held, budget)
            self._held = min(self._held, limit)
        attended = min(self._held, limit) if method.reads_less else self._held
        read = attended * shape.token_bytes
        if attended < self._held:
            read += method.reads(shape, self._held, attended)
            estimated += self._sparse * method.estimates(shape, self._held)
        layers = max(self._whole + self._sparse, 1)
        self.meter.step((self._whole * self._seen + self._sparse * attended) / layers)
        self.meter.estimated(estimated)
        kept = method.kept(shape, self._held, budget)
        self._note(kept, self._whole * self._seen * shape.token_bytes + self._sparse * read)
        return self._sparse > 0 and attended < self._seen

    def _note(self, kept: int, read: int) -> None:
        shape = self._cache.shape
        side = self._sparse * self._cache.method.beside(shape, self._held)
        plain = self._whole * self._seen + sum(min(self._seen, window) for window in self._windows)
        self.resident = side + plain * shape.token_bytes + self._sparse * kept
        self.meter.memory(resident=self.resident, side=side, read=read)
