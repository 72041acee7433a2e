"""How logits step along their gradient: pure functions, each with a state of its own in plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]

# Weight of the past in the running scale of the meta-gradient.
SCALE_MEMORY = 0.9
# Adam's own, of Kingma and Ba, arXiv 1412.6980, algorithm 1.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Step(NamedTuple):
    """A kind of step: ``init`` makes its state for T logits, ``taken`` returns the state after a gradient, and the step."""

    init: Callable[[int], State]
    taken: Callable[[State, Tensor], tuple[State, Tensor]]


def _nothing(count: int) -> State:
    return {}


def plain(state: State, gradient: Tensor) -> tuple[State, Tensor]:
    """Return the gradient itself, (T,)."""
    return {}, gradient


def _scale(count: int) -> State:
    return {"scale": torch.zeros((), dtype=torch.float64), "updates": torch.tensor(0)}


def scaled(state: State, gradient: Tensor) -> tuple[State, Tensor]:
    """Return the gradient over its running size, the root of its mean square over tasks and past steps, (T,)."""
    square = (gradient**2).mean()
    first = int(state["updates"]) == 0
    scale = square if first else SCALE_MEMORY * state["scale"] + (1 - SCALE_MEMORY) * square
    step = gradient / scale.sqrt().clamp(min=torch.finfo(scale.dtype).tiny)
    return {"scale": scale, "updates": state["updates"] + 1}, step


def _moments(count: int) -> State:
    zeros = torch.zeros(count, dtype=torch.float64)
    return {"first": zeros, "second": zeros.clone(), "updates": torch.tensor(0)}


def adam(state: State, gradient: Tensor) -> tuple[State, Tensor]:
    """Return Adam's step, m_hat / (sqrt(v_hat) + eps) by task, (T,)."""
    updates = state["updates"] + 1
    first = BETA1 * state["first"] + (1 - BETA1) * gradient
    second = BETA2 * state["second"] + (1 - BETA2) * gradient**2
    size = (second / (1 - BETA2 ** int(updates))).sqrt() + EPSILON
    return {"first": first, "second": second, "updates": updates}, first / (1 - BETA1 ** int(updates)) / size


STEPS = {"plain": Step(_nothing, plain), "adam": Step(_moments, adam), "scaled": Step(_scale, scaled)}
