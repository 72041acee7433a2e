"""A recall task whose answers are exact, and a tiny model that learns it in minutes.

A context holds pairs among fillers, each pair one token that stands for a key and a value. Later on a key alone asks for its
value, which is the next token. What a model has to do is one look-up, at a distance that nothing but the key tells.
"""

from __future__ import annotations

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
# At the end, with a new optimizer: contexts of mostly fillers, asked in their last eighth, as the study asks.
LAST = (4096, 80, 1)
# For contexts beyond LONG: more of them, of which only the last 256 tokens ask, at short intervals.
LONG, LONGER = 2048, ((4096, 100), (8192, 60))
ASKING, APART = 256, 4
LONGEST = 16384
MODELS = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3"},
}


def sequences(
    rng: np.random.Generator, count: int, length: int, pairs: int, before: float = 0.5, apart: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw training sequences (count, length) and their labels, -100 where nothing is asked.

    Pairs stand in the first part, ``before`` of the sequence; behind it keys that were paired ask, each before its value,
    with up to ``apart`` fillers between.
    """
    apart = max(length // 64, 1) if apart is None else apart
    ids = FILLER + rng.integers(0, FILLERS, (count, length))
    labels = np.full((count, length), -100)
    for row in range(count):
        keys = rng.permutation(KEYS)[:pairs]
        values = rng.integers(0, VALUES, pairs)
        first = max(int(before * length), pairs)
        places = np.sort(rng.choice(first, pairs, replace=False))
        ids[row, places] = PAIR + keys * VALUES + values
        at = first
        while at + 1 < length:
            which = rng.integers(0, pairs)
            ids[row, at], ids[row, at + 1] = KEY + keys[which], VALUE + values[which]
            labels[row, at + 1] = VALUE + values[which]
            at += 2 + int(rng.integers(0, apart + 1))
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


def train(model: Any, kind: str, seed: int, say: Callable[[str], None] = print) -> Any:  # noqa: ANN401
    """Train the model through the curriculum; some ten minutes on a core."""
    rng = np.random.default_rng([11, seed])
    optimizer = _optimizer(model)
    for length, steps, count in CURRICULUM:
        right = stage(model, optimizer, rng, (length, steps, count), 0.5)
        say(f"{kind} seed {seed}, {length} tokens: {right:.3f} right")
    return model


def lengthen(model: Any, seed: int, say: Callable[[str], None] = print) -> Any:  # noqa: ANN401
    """Train a model that went through the curriculum on contexts as the study asks them."""
    right = stage(model, _optimizer(model), np.random.default_rng([12, seed]), LAST, 0.875)
    say(f"seed {seed}, {LAST[0]} tokens asked at the end: {right:.3f} right")
    return model


def lengthen_further(model: Any, seed: int, say: Callable[[str], None] = print) -> Any:  # noqa: ANN401
    """Train on for contexts beyond `LONG`, the learning rate falling to nothing at each length; some six minutes."""
    rng = np.random.default_rng([13, seed])
    for length, steps in LONGER:
        optimizer, right = _optimizer(model), []
        for step in range(steps):
            _rate(optimizer, 1e-3 * min(1.0, (step + 1) / 10) * (1 - step / steps))
            drawn = int(rng.integers(KEYS // 4, KEYS + 1))
            right.append(_learn(model, optimizer, sequences(rng, 1, length, drawn, 1 - ASKING / length, APART)))
        say(f"seed {seed}, {length} tokens asked at the end: {sum(right[-20:]) / 20:.3f} right")
    return model


def _rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _optimizer(model: Any) -> torch.optim.Optimizer:  # noqa: ANN401
    return torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01, betas=(0.9, 0.98))


def stage(
    model: Any,  # noqa: ANN401
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    of: tuple[int, int, int],
    before: float,
) -> float:
    """Train on sequences of one length, and return the share of right answers in the last ten steps."""
    length, steps, count = of
    pairs, right = min(KEYS, length * 3 // 8), []
    for step in range(steps):
        _rate(optimizer, 5e-3 * min(1.0, (step + 1) / 20) * min(1.0, (64 / length) ** 0.5))
        drawn = int(rng.integers(2 if length < 128 else pairs // 2, pairs + 1))
        right.append(_learn(model, optimizer, sequences(rng, count, length, drawn, before)))
    return sum(right[-10:]) / len(right[-10:])


def _learn(model: Any, optimizer: torch.optim.Optimizer, drawn: tuple[np.ndarray, np.ndarray]) -> float:  # noqa: ANN401
    """Take a step on sequences and their labels, and return the share of right answers before it."""
    ids, labels = (torch.from_numpy(part) for part in drawn)
    asked = labels[:, 1:] != -100
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1][asked]
    logits, wanted = model.lm_head(hidden), labels[:, 1:][asked]
    loss = functional.cross_entropy(logits, wanted)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float((logits.detach().argmax(-1) == wanted).float().mean())


def trained(kind: str, seed: int, folder: Path, length: int = LONG) -> Any:  # noqa: ANN401
    """Return the model as it was trained for contexts of ``length``, from ``folder`` as far as it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build(kind, seed)
    stages: list[tuple[str, Callable[[], Any]]] = [
        ("", lambda: train(model, kind, seed)),
        ("-long", lambda: lengthen(model, seed)),
        ("-longer", lambda: lengthen_further(model, seed)),
    ]
    for end, stage_of in stages if length > LONG else stages[:2]:
        file = folder / f"{kind}-{seed}{end}.safetensors"
        if not file.exists():
            save(stage_of(), file)
        model.load_state_dict(load_file(file))
    return model.eval()


def save(model: Any, file: Path) -> None:  # noqa: ANN401
    """Write a model's weights."""
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, file)


if __name__ == "__main__":
    import sys

    trained(sys.argv[1], int(sys.argv[2]), Path("runs/kv_budgets"), *map(int, sys.argv[3:]))
