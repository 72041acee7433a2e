"""What each request of a batch took, noted pass by pass while transformers generates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from torch import nn

from apportion.budget.prices import Prices
from apportion.budget.served import Meter, Served
from apportion.decoding.attach import BudgetedCache


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


class Counting:
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

    def served(self, row: int, generated: int, kinds: Iterable[str] = (), *, again: bool = False) -> Served:
        """Return what the request in a row took.

        Args:
            row: Which one.
            generated: How many tokens it wrote until it ended.
            kinds: Of each token that is counted as written.
            again: Whether all that it began with had been read before, and was read again.
        """
        prompt, clock = self._prompts[row], [0.0]
        meter = Meter(self._prices, lambda: clock[0])
        count = meter.waste if again else meter.prefill
        for made, end in self._read:
            # A part of the prompt: of a row that is padded, the positions behind its padding.
            before = max(end - made.width - (self._padded - prompt), 0)
            now = max(end - (self._padded - prompt), 0)
            clock[0] += made.seconds
            count(now - before, before, padded=made.width)
            _remember(meter, made)
        steps, idle = self._written
        done = min(max(generated - 1, 0), len(steps) - 1)
        took = meter.close() + steps[done]
        written = Counter(kinds)
        return replace(
            took,
            padded=took.padded + idle[done],
            **{kind: getattr(took, kind) + number for kind, number in written.items()},
        )

    @cached_property
    def _read(self) -> list[tuple[_Pass, int]]:
        """The passes over parts of the prompt, each with where it ends."""
        ends = accumulate(made.width for made in self._passes)
        return [(made, end) for made, end in zip(self._passes, ends, strict=True) if end <= self._padded]

    @cached_property
    def _written(self) -> tuple[list[Served], list[int]]:
        """What the first 0, 1, 2, ... decode steps took, the same for every row, and the positions of those behind them."""
        clock = [0.0]
        meter, passes = Meter(self._prices, lambda: clock[0]), self._passes[len(self._read) :]
        found = [Served(requests=0)]
        for made in passes:
            clock[0] += made.seconds
            meter.step(made.attended, padded=made.width)
            meter.estimated(made.estimated)
            _remember(meter, made)
            found.append(replace(meter.close(), requests=0))
        behind = [0, *accumulate(made.width for made in reversed(passes))]
        return found, behind[::-1]


def _remember(meter: Meter, made: _Pass) -> None:
    meter.memory(resident=made.resident, side=made.side, host=made.host, read=made.read, moved=made.moved)
