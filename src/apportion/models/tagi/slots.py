"""Where adapters go: linear layers of a base model that add what the present forward pass was given for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from apportion._errors import ApportionError, nearest

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Of each slot, A (T, d_in, r) and B (T, r, d_out) of T tasks."""


@dataclass(frozen=True)
class Slot:
    """A linear layer that is adapted.

    ``name`` is its path in the base model, ``kind`` the path without the layer's number, ``layer`` that number.
    """

    name: str
    kind: str
    layer: int
    d_in: int
    d_out: int


@dataclass(frozen=True)
class Given:
    """What one forward pass is given: adapters of T tasks, and which of these each of its B examples belongs to.

    ``keys_values`` are, by layer, the instruction states as fusion's keys and values, (T, heads, s, d) each; ``mask``
    (T, s) says which of them are tokens.
    """

    factors: Factors
    scale: float
    rows: Tensor
    keys_values: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    mask: Tensor | None = None

    def rows_of(self, size: int) -> Tensor:
        """Return the task of each row of a batch of ``size``: beam search repeats each example beside itself."""
        return self.rows if size == len(self.rows) else self.rows.repeat_interleave(size // len(self.rows))


# Per forward pass and thread; on the modules it would outlive the pass, and beams, threads and nested passes would mix.
_GIVEN: ContextVar[Given | None] = ContextVar("given", default=None)


@contextmanager
def giving(given: Given) -> Iterator[None]:
    """Within the block, the base model's passes are adapted."""
    token = _GIVEN.set(given)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given_now() -> Given | None:
    """Return what the present forward pass was given, or None."""
    return _GIVEN.get()


def find_slots(base: nn.Module, modules: Sequence[str]) -> list[Slot]:
    """Return the linear layers that bear one of these last names, in the model's order.

    Raises:
        ApportionError: A name that no linear layer bears, or that of one whose weight is the embeddings'.
    """
    linear = {name: module for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    known = dict.fromkeys(name.rpartition(".")[2] for name in linear)
    for module in modules:
        if module not in known:
            raise ApportionError(f"'kind.modules' names '{module}', no layer of the model{nearest(module, known)}.")
    slots = []
    embeddings = [module.weight for module in base.modules() if isinstance(module, nn.Embedding)]
    for name, layer in linear.items():
        if name.rpartition(".")[2] in modules:
            if any(layer.weight is weight for weight in embeddings):
                raise ApportionError(
                    f"'kind.modules' names '{name}', whose weight is the embeddings' too: an adapter merged into one "
                    "would change both, so leave it out."
                )
            numbers = re.findall(r"\.(\d+)(?=\.)", name)
            kind = re.sub(r"\.\d+(?=\.)", "", name)
            slots.append(Slot(name, kind, int(numbers[0]) if numbers else 0, layer.in_features, layer.out_features))
    return slots


def attach(base: nn.Module, slots: Sequence[Slot]) -> None:
    """Let the slots' layers add x A B * scale to their output wherever a pass is given adapters."""
    modules = dict(base.named_modules())
    for slot in slots:
        modules[slot.name].register_forward_hook(partial(_adapted, slot.name))


def _adapted(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    given = given_now()
    if given is None or name not in given.factors:
        return output
    x: Tensor = args[0]
    rows = given.rows_of(len(x))
    a, b = (factor[rows].to(x.dtype) for factor in given.factors[name])
    return output + (x @ a) @ b * given.scale
