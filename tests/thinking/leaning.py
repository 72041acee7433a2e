"""A tiny random model that leans towards tags of thinking: it begins them, gives them up, and closes by itself."""

from __future__ import annotations

from functools import cache

import torch

from apportion.thinking.tags import TagIds
from tests.tiny import tiny_model

VOCAB = 31
THREE = TagIds(open=(3,), close=(4, 5, 6), wait=(7,), answer=(8, 9))
ONE = TagIds(open=(3,), close=(4,), wait=(7,), answer=())
END = 2


@cache
def leaning(tags: TagIds = THREE, begin: float = 6.0, on: float = 6.0, vocab: int = VOCAB, noise: float = 0.0):
    """The model; the larger ``begin`` the more often a tag is begun, the larger ``on`` the more often it is gone on with."""
    model = tiny_model("llama", vocab=vocab, max_position_embeddings=256).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(12)  # a model that is not indifferent writes no loops
    table = noise * torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(0))
    table[:, tags.close[0]] += begin
    for before, after in zip(tags.close, tags.close[1:], strict=False):
        table[before, after] += on

    def lean(module, args, kwargs, output):
        ids = kwargs.get("input_ids", args[0] if args else None)
        output.logits = output.logits + table[ids[:, -output.logits.shape[1] :]]
        return output

    model.register_forward_hook(lean, with_kwargs=True)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def prompts(count: int, seed: int, longest: int = 9):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, longest + 1, (count,), generator=generator)
    return [torch.randint(3, VOCAB, (int(size),), generator=generator).tolist() for size in sizes]


def padded(rows):
    """Ids and mask of a batch, padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
