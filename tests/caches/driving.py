"""One layer of a cache, driven as generation drives it: a prompt, then a token a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from apportion.caches import KvShape
from apportion.decoding.attend import attend
from apportion.decoding.store import Layer
from apportion.decoding.watch import Watch


class _Module(nn.Module):
    is_causal, layer_idx, sliding_window = True, 0, None

    def __init__(self, groups):
        super().__init__()
        self.num_key_value_groups = groups


@dataclass
class Driven:
    """A layer after its steps, with what went in and what came out."""

    layer: Layer
    prompt_queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    queries: list
    outputs: list
    mask: Any
    padding: list

    def positions(self, row):
        return list(range(self.padding[row], self.keys.shape[2]))

    def group(self, row, head, step=-1):
        """The queries (G, d) of a KV head in a step."""
        groups = self.queries[step].shape[1] // self.keys.shape[1]
        return self.queries[step][row, head * groups : (head + 1) * groups, 0]


def masked(padding, n):
    """The mask that transformers gives a decode step over n tokens; None where nothing is padded."""
    if not any(padding):
        return None
    return torch.stack([torch.arange(n) >= start for start in padding])[:, None, None]


def driven(
    method,
    budget,
    *,
    prompt=70,
    steps=5,
    padding=(0,),
    heads=4,
    kv_heads=2,
    head=16,
    dtype=torch.float64,
    seed=0,
    draw=None,
):
    """Drive a layer; ``draw`` makes the numbers, Gaussian where None. ``padding``: a row each."""
    made = torch.Generator().manual_seed(seed)
    draw = draw or (lambda *shape: torch.randn(*shape, generator=made, dtype=torch.float64))
    b = len(padding)
    shape = KvShape(1, heads, kv_heads, head, dtype.itemsize)
    layer = Layer(method, 0, shape, lambda seen: min(budget, seen), Watch())
    module, scaling = _Module(heads // kv_heads), head**-0.5
    news = [draw(b, h, prompt, head).to(dtype) for h in (heads, kv_heads, kv_heads)]
    layer.update(*news[1:])
    layer.ask(news[0])
    found = Driven(layer, news[0], news[1], news[2], [], [], None, list(padding))
    for step in range(steps):
        query, key, value = (draw(b, h, 1, head).to(dtype) for h in (heads, kv_heads, kv_heads))
        found.keys, found.values = torch.cat([found.keys, key], 2), torch.cat([found.values, value], 2)
        found.mask = masked(padding, prompt + step + 1)
        keys, values = layer.update(key, value)
        found.outputs.append(attend(module, query, keys, values, found.mask, scaling=scaling)[0][:, 0])
        found.queries.append(query)
    return found


def chosen(run, budget, step=-1):
    """What the layer's method chooses for the last step's query: a set of positions for each row and KV head."""
    held = run.layer.held(run.mask)
    return sets(run.layer.method.select(held, run.queries[step], budget))


def sets(selection):
    b, heads, _ = selection.indices.shape
    found = {}
    for row in range(b):
        for head in range(heads):
            indices = selection.indices[row, head].tolist()
            assert indices == sorted(set(indices)), "not ascending, or one twice"
            valid = [True] * len(indices) if selection.valid is None else selection.valid[row, head].tolist()
            found[row, head] = {j for j, counts in zip(indices, valid, strict=True) if counts}
    return found
