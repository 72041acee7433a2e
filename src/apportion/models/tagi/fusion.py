"""Fusion: cross-attention from the input to the instruction's states, beside each layer's self-attention."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from apportion.models.tagi.slots import given_now


class Fusion(nn.Module):
    """F = S + O(MHA(Q = norm(x + S), K = I, V = I)) for a layer's input x, self-attention output S, instruction states I.

    TAGI's hierarchical fusion (arXiv 2406.12382, section 3.2.1), of which neither weights nor norms are given there: the
    weights are new, and O starts at zero, so that the untrained model is the base.

    Args:
        width: d, of the base model.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = nn.RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.o.weight)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, (T, heads, s, d / heads) each, of instruction states (T, s, d): once a task."""
        keys, values = self.kv(states).chunk(2, -1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attend from ``x`` (B, L, d) to its instruction: keys and values (B, heads, s, d / heads), mask (B, s)."""
        queries = self._split(self.q(self.norm(x)))
        # Plain products: they can be differentiated forwards and twice, and there are few of them.
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask[:, None, None].bool(), torch.finfo(scores.dtype).min)
        mixed: Tensor = self.o((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)


def attention_layers(base: Any) -> dict[str, nn.Module]:  # noqa: ANN401
    """Return the self-attention of every layer that reads the input: T5's encoder, or the only stack there is."""
    if base.config.is_encoder_decoder:
        return {f"encoder_{i}": block.layer[0].SelfAttention for i, block in enumerate(base.encoder.block)}
    return {f"layer_{i}": layer.self_attn for i, layer in enumerate(base.get_decoder().layers)}


def attach_fusion(base: nn.Module, fusions: nn.ModuleDict) -> None:
    """Let each layer's self-attention add its fusion wherever a pass is given instruction states."""
    for name, attention in attention_layers(base).items():
        attention.register_forward_hook(partial(_fused, name, cast("Fusion", fusions[name])), with_kwargs=True)


def _fused(
    name: str,
    fusion: Fusion,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    given = given_now()
    if given is None or name not in given.keys_values:
        return output
    assert given.mask is not None
    x: Tensor = args[0] if args else kwargs["hidden_states"]
    rows = given.rows_of(len(x))
    keys, values = given.keys_values[name]
    fused = fusion((x + output[0]).to(fusion.norm.weight.dtype), keys[rows], values[rows], given.mask[rows])
    return (output[0] + fused.to(output[0].dtype), *output[1:])
