"""A recall task whose answers are exact, and a tiny model that learns it in minutes.

A context holds pairs among fillers, each pair one token that stands for a key and a value. Later on a key alone asks for its
value, which is the next token. What a model has to do is one look-up, at a distance that nothing but the key tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

KEYS, VALUES, FILLERS = 64, 16, 64
PAIR, KEY, VALUE, FILLER = 0, KEYS * VALUES, KEYS * VALUES + KEYS, KEYS * VALUES + KEYS + VALUES
VOCABULARY = FILLER + FILLERS

# Context lengths and optimizer steps of the curriculum, with sequences a step.
CURRICULUM = ((32, 1500, 64), (64, 300, 48), (128, 250, 24), (256, 150, 12))
CURRICULUM += ((512, 100, 6), (1024, 80, 3), (2048, 80, 2), (4096, 100, 1))
LONGEST = 16384
MODELS = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3"},
}


def sequences(rng: np.random.Generator, count: int, length: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw training sequences (count, length) and their labels, -100 where nothing is asked.

    Half of what is not a pair asks: a key that was paired before, and its value.
    """
    ids = FILLER + rng.integers(0, FILLERS, (count, length))
    labels = np.full((count, length), -100)
    for row in range(count):
        keys = rng.permutation(KEYS)[:pairs]
        values = rng.integers(0, VALUES, pairs)
        first = max(length // 2, pairs)
        places = np.sort(rng.choice(first, pairs, replace=False))
        ids[row, places] = PAIR + keys * VALUES + values
        at = first
        while at + 1 < length:
            which = rng.integers(0, pairs)
            ids[row, at], ids[row, at + 1] = KEY + keys[which], VALUE + values[which]
            labels[row, at + 1] = VALUE + values[which]
            at += 2 + int(rng.integers(0, max(length // 64, 1) + 1))
    return ids, labels


def question(
    rng: np.random.Generator, length: int, pairs: int, asked: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a context (length,), keys that it is asked by (asked,) and their values, as tokens."""
    ids = FILLER + rng.integers(0, FILLERS, length)
    keys, values = rng.permutation(KEYS)[:pairs], rng.integers(0, VALUES, pairs)
    places = np.sort(rng.choice(length, pairs, replace=False))
    ids[places] = PAIR + keys * VALUES + values
    which = rng.permutation(pairs)[:asked]
    return ids, KEY + keys[which], VALUE + values[which]


def build(kind: str, seed: int) -> Any:  # noqa: ANN401 - a transformers model
    """Return the model, from scratch: 0.7M parameters."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=LONGEST,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        initializer_range=0.06,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        **MODELS[kind],
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def train(kind: str, seed: int, say: Callable[[str], None] = print) -> Any:  # noqa: ANN401
    """Train the model through the curriculum; some minutes on two cores."""
    model, rng, started = build(kind, seed), np.random.default_rng([11, seed]), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01, betas=(0.9, 0.98))
    for length, steps, count in CURRICULUM:
        pairs = min(KEYS, length * 3 // 8)
        right = torch.zeros(())
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 5e-3 * min(1.0, (step + 1) / 20) * min(1.0, (64 / length) ** 0.5)
            ids, labels = (
                torch.from_numpy(part)
                for part in sequences(
                    rng, count, length, int(rng.integers(2 if length < 128 else pairs // 2, pairs + 1))
                )
            )
            asked = labels[:, 1:] != -100
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1][asked]
            logits, wanted = model.lm_head(hidden), labels[:, 1:][asked]
            loss = functional.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            right = (logits.detach().argmax(-1) == wanted).float().mean()
        say(f"{kind} seed {seed}, {length} tokens: {float(right):.3f} right, {time.monotonic() - started:.0f} s")
    return model.eval()


def trained(kind: str, seed: int, folder: Path) -> Any:  # noqa: ANN401
    """Return the trained model, from ``folder`` where it is there already."""
    file = folder / f"{kind}-{seed}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.clone() for name, tensor in train(kind, seed).state_dict().items()}
        save_file(weights, file)
    model = build(kind, seed)
    model.load_state_dict(load_file(file))
    return model.eval()


if __name__ == "__main__":
    import sys

    trained(sys.argv[1], int(sys.argv[2]), Path("runs/kv_budgets"))
