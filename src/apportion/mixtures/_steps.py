"""How logits step along their gradient: pure functions, each with a state of its own in plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from apportion.signals._records import Feedback

State = dict[str, Tensor]

# Weight of the past in the running scale of the meta-gradient.
SCALE_MEMORY = 0.9
# Reads at which a task counts half in the average that others are compared with.
TRUSTED = 4
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


def no_evidence(count: int) -> State:
    """Return the state of `evidence` before anything was read, for T tasks."""
    zeros = torch.zeros(count, dtype=torch.float64)
    return {name: zeros.clone() for name in ("sums", "reads", "squares", "weight", "effect")}


def pooled(state: State) -> tuple[Tensor, Tensor]:
    """Return N and S, (T,) each: examples read, and the sum of their effects, those of the latest direction included.

    An effect is what an example adds to the alignment, less what one of an average task adds, over the spread of examples
    within tasks: directions differ in size.
    """
    sums, reads, squares = state["sums"], state["reads"], state["squares"]
    free = reads.sum() - (reads > 0).sum()
    if free < 1:
        return state["weight"], state["effect"]
    gains = sums / reads.clamp(min=1)
    spread = ((squares - reads * gains**2).sum().clamp(min=0) / free).sqrt()
    if spread <= 0:
        return state["weight"], state["effect"]
    # A task that was read twice says little of the average; one that was read often says no more than another.
    trust = reads / (reads + TRUSTED)
    usual = (trust * gains).sum() / trust.sum()
    return state["weight"] + reads, state["effect"] + reads * (gains - usual) / spread


def gathered(state: State, feedback: Feedback, memory: float) -> State:
    """Return the state after feedback: reads of one direction are added up, and pooled with the past when the next is taken.

    Args:
        state: The one before.
        feedback: What was read, or the targets' losses that a new direction was taken at.
        memory: What a new direction leaves of all that was pooled before it.
    """
    if feedback.target_losses is not None:
        weight, effect = pooled(state)
        return no_evidence(len(weight)) | {"weight": memory * weight, "effect": memory * effect}
    if feedback.alignment is None or feedback.drawn is None or feedback.squares is None:
        return {}
    return {
        "sums": state["sums"] + feedback.alignment.double(),
        "reads": state["reads"] + feedback.drawn,
        "squares": state["squares"] + feedback.squares,
    }


def evidence(state: State) -> Tensor:
    """Return t, (T,): each task's mean effect over its standard error, S / sqrt(N); 0 for one that was never read."""
    weight, effect = pooled(state)
    return torch.where(weight > 0, effect / weight.clamp(min=1e-9).sqrt(), 0.0)


STEPS = {"plain": Step(_nothing, plain), "adam": Step(_moments, adam), "scaled": Step(_scale, scaled)}
