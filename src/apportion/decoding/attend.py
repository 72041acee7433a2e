"""The attention function of a model whose cache is under a budget: whole prompts, and decode steps over what is chosen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from apportion.caches._cache import grouped

# What a model's configuration calls it.
NAME = "apportion"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Return the attention of ``query`` (b, heads, m, d), as transformers' own function does, (b, m, heads, d).

    A single query behind a longer prompt reads what the layer's method chooses; everything else is torch's own attention.

    Raises:
        RuntimeError: A full-attention layer whose keys carry no layer of the cache: it would be dense without a word.
    """
    layer = getattr(key, "layer", None)
    if layer is None:
        if getattr(module, "sliding_window", None) is None:
            raise RuntimeError(
                "A model whose cache is under a budget was called without that cache: pass it as 'past_key_values', or "
                "leave the block that set it up."
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    if query.shape[2] > 1 or layer.seen == 1:
        layer.ask(query)
        if layer.positions is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return _chunk(layer, query, attention_mask, scaling), None
    layer.scaling = scaling or layer.scaling
    mask = attention_mask if attention_mask is None else attention_mask[..., -1:, :]
    prompt = not layer.settled
    with torch.no_grad():
        layer.settle(mask)
        layer.forget(mask, prompt=prompt)
    if layer.place(query, mask):
        with torch.no_grad():
            keys, values, valid = layer.step(query, mask)
        return packed(query, keys, values, valid, scaling), None
    held = layer.held(mask)
    n = held.keys.shape[2]
    if layer.whole or n <= layer.limit or not layer.method.reads_less:
        layer.tell(len(query), n, n)
        layer.method.look(held, query)
        return packed(query, held.keys, held.values, held.valid, scaling), None
    with torch.no_grad():
        chosen = layer.method.select(held, query, layer.budget)
    keys, values = layer.read(held, chosen)
    return packed(query, keys, values, chosen.valid, scaling), None


def packed(query: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None, scaling: float | None) -> Tensor:
    """Return a decode step's attention (b, 1, heads, d), the queries of a KV head side by side.

    Args:
        query: (b, heads, 1, d).
        keys: (b, kv_heads, k, d).
        values: Like keys.
        valid: (b, kv_heads, k), False for what is not attended to; None where all is.
        scaling: Of the products; one over the root of d where None.
    """
    b, heads, _, d = query.shape
    packed_query = grouped(query, keys.shape[1])
    mask = None if valid is None else valid[:, :, None, :]
    out = functional.scaled_dot_product_attention(packed_query, keys, values, attn_mask=mask, scale=scaling)
    return out.reshape(b, heads, 1, d).transpose(1, 2)


def _chunk(layer: Any, query: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:  # noqa: ANN401
    """Return the attention of several queries behind a cache that has forgotten some, (b, m, heads, d)."""
    b, heads, m, _ = query.shape
    keys, values = layer.keys, layer.values
    kv_heads, n = keys.shape[1:3]
    places = layer.positions[:, :, None, :]
    newest = torch.arange(layer.seen - m, layer.seen, device=query.device)[None, None, :, None]
    allowed = places <= newest
    if mask is not None:
        allowed = torch.gather(mask.expand(b, kv_heads, m, layer.seen), 3, places.expand(b, kv_heads, m, n))
    group = heads // kv_heads
    keys, values, allowed = (part.repeat_interleave(group, dim=1) for part in (keys, values, allowed))
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=allowed, scale=scaling).transpose(
        1, 2
    )


AttentionInterface.register(NAME, attend)
# Without one of its own the function would get no mask, and padded prompts would be read.
AttentionMaskInterface.register(NAME, sdpa_mask)
