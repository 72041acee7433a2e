"""A tiny model, and traces of random tokens."""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from apportion.training.rl.traces import Problem, Summary, Trace, segment_of

VOCABULARY, CLOSE = 24, (20, 21)


def model(attention="sdpa", seed=0, model_type="llama"):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.3,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def trace(rng, budgets, summaries, *, length=None):
    """A trace whose thinking ends by itself where ``length`` is below the last budget."""
    length = int(rng.integers(0, budgets[-1] + 1)) if length is None else length

    def ids(low, high):
        return tuple(int(token) for token in rng.integers(2, 20, int(rng.integers(low, high))))

    thinking = tuple(int(token) for token in rng.integers(2, 20, length))
    own = length < budgets[-1]
    cuts = tuple(
        tuple(Summary((*ids(1, 4), 1), "", float(rng.random()), bool(rng.integers(2))) for _ in range(summaries))
        for _ in budgets
    )
    problem = Problem("t", {}, ids(2, 6), ("1",))
    return Trace(problem, thinking, CLOSE, (own, own), CLOSE, segment_of(length, budgets), cuts)


def rows_of(rng, count, budgets=(3, 6, 10), summaries=2):
    """Traces with random advantages: (trace, thinking (S,), summaries (S, A)) each; ends of all kinds among them."""
    lengths = [0, budgets[0], budgets[-1], budgets[-1] - 1]
    return [
        (
            trace(rng, budgets, summaries, length=lengths[i] if i < len(lengths) else None),
            rng.normal(size=len(budgets)),
            rng.normal(size=(len(budgets), summaries)),
        )
        for i in range(count)
    ]


def seeded():
    return np.random.default_rng(5)
