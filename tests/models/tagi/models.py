"""Tiny hypernetworks on tiny bases of every family, and batches for them."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, T5Config

from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.heads import HEADS
from apportion.models.tagi.kind import Tagi
from apportion.tasks.batches import collate
from apportion.tasks.encoded import IGNORED
from tests.tiny import tiny_config, tiny_model

FAMILIES = ("t5", "llama", "qwen3")
HEAD_NAMES = tuple(HEADS)
# A family with every way of reading instructions that it has.
WAYS = [
    *[(family, {}) for family in FAMILIES],
    *[(family, {"fusion": True}) for family in ("t5", "llama", "qwen3")],
    ("t5", {"memory": True}),
    ("t5", {"fusion": True, "memory": True}),
]
VOCAB = 61
SMALL = {"r": 3, "alpha": 6.0, "code": 8, "hidden": 12, "kl": 0.0}


def base_config(family, **extra):
    if family != "t5":
        return tiny_config(family, hidden=16, **extra)
    # As in version 1.1: a gated MLP and a head of its own; heads together narrower than the model.
    settings = {
        "vocab_size": VOCAB,
        "d_model": 16,
        "d_kv": 3,
        "d_ff": 20,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
    }
    return T5Config(**settings | extra)


def make_base(family, *, dtype=torch.float32, seed=0, **extra):
    if family != "t5":
        return tiny_model(family, dtype=dtype, seed=seed, hidden=16, **extra).eval()
    torch.manual_seed(seed)
    model = AutoModelForSeq2SeqLM.from_config(base_config(family, **extra)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def stir(module, seed=1, size=0.2):
    """Move every parameter away from its special starting value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))


def make_tagi(family, *, dtype=torch.float32, stirred=True, lengths=(5, 9, 3), seed=0, on=None, config=None, **spec):
    """A hypernetwork with instructions of these lengths; stirred, its adapters and fusion are far from nothing."""
    on = make_base(family, dtype=dtype, seed=seed, **(config or {})) if on is None else on
    torch.manual_seed(seed)
    instructions = [torch.randint(3, VOCAB, (length,)) for length in lengths]
    model = TagiModel(on, Tagi(**SMALL | spec), instructions).to(dtype)
    if stirred:
        for part in filter(None, (model.pool, model.head, model.fusion)):
            stir(part)
    return model.eval()


def example(context, rest, seed=0, holes=()):
    """Ids and labels: ``context`` tokens, then ``rest`` supervised ones but for those at ``holes``."""
    ids = np.random.default_rng(seed).integers(3, VOCAB, context + rest)
    labels = np.where(np.arange(len(ids)) < context, IGNORED, ids)
    labels[list(holes)] = IGNORED
    return ids, labels


EXAMPLES = [(0, example(4, 3, 0)), (2, example(9, 1, 1)), (1, example(1, 6, 2)), (0, example(7, 7, 3, holes=(9, 10)))]


def batch_of(examples=EXAMPLES):
    return collate([pair for _, pair in examples], [task for task, _ in examples], 0)


def alone(examples=EXAMPLES):
    return [batch_of([one]) for one in examples]
