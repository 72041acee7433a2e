"""A model's last-layer states, read from the passes it makes anyway, and which of them belong to which example."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from apportion.tasks.batches import Batch

Positions = Literal["all", "prompt", "completion"]

EPS = 1e-8


@contextmanager
def last_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, every forward pass adds its last-layer states to the yielded list, detached, (rows, L, d).

    They are the decoder's output, after its final norm: what the output head is given.

    Args:
        model: A transformers causal language model, PEFT-wrapped or not.

    Cost: none of its own.
    """
    states: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Any) -> None:  # noqa: ANN401
        states.append(output[0].detach())

    causal: Any = getattr(model, "module", model)  # several processes wrap it
    handle = causal.get_decoder().register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def of_examples(states: Tensor, batch: Batch) -> Tensor:
    """Return the states of the row that each example stands in, (B, L, d), from those of the rows, (R, L, d)."""
    return states[_rows(batch)] if batch.packed else states[: len(batch)]


def members(batch: Batch, positions: Positions) -> Tensor:
    """Return which positions of the row that an example stands in are tokens of it, (B, L) bool.

    Args:
        batch: The examples.
        positions: Their tokens: ``completion`` those with a label, ``prompt`` the rest, ``all`` both.
    """
    real = batch.attention_mask.bool()
    supervised = torch.zeros_like(real)
    supervised.view(-1)[batch.positions + 1] = True
    asked = {"all": real, "prompt": real & ~supervised, "completion": supervised}[positions]
    rows = _rows(batch)
    examples = torch.arange(len(batch), device=real.device)
    return (batch.segments[rows] == examples[:, None]) & asked[rows]


def _rows(batch: Batch) -> Tensor:
    """Return the row that each example stands in, (B,)."""
    segments = batch.segments
    if not batch.packed:
        return torch.arange(len(batch), device=segments.device)
    row = torch.arange(len(segments), device=segments.device).repeat_interleave(segments.shape[1])
    rows = segments.new_zeros(max(len(batch), 1))  # an empty batch has a row all the same
    return rows.scatter_reduce(0, segments.flatten(), row, "amin", include_self=False)[: len(batch)]


def position_weighted_mean(states: Tensor, members: Tensor) -> Tensor:
    """Return phi = sum_j (j / sum j) h_j for each example, (B, d); zeros for one without tokens.

    Args:
        states: h, the last-layer states of the row that each example stands in, (B, L, d).
        members: Which positions of it are the example's tokens, (B, L) bool; j counts these, in their order.

    Only an example's own tokens are counted, so padding, its side and the examples packed beside it do not matter.
    Computed in fp32 (fp64 for fp64 states). Source: ADAPT weights, arXiv 2605.05227, equation 9.
    """
    dtype = torch.promote_types(states.dtype, torch.float32)
    ranks = (members.cumsum(1) * members).to(dtype)
    weights = ranks / ranks.sum(1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], states.to(dtype)).squeeze(1)


def unit(vectors: Tensor) -> Tensor:
    """Return each row of (B, d) divided by max(its norm, eps)."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / norms.clamp(min=EPS)
