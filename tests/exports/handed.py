"""A run as exporters are told it, without a run."""

from __future__ import annotations

from typing import Any

from apportion.exports import Handed, TaskFile, TaskShare

TRAINING = {
    "learning_rate": 2e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "optim": "adamw_torch",
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
    "gradient_checkpointing": True,
    "bf16": True,
}
LORA = {"r": 8, "alpha": 16.0, "dropout": 0.05, "target_modules": "all-linear"}
# Of each task: its rows, and how many were drawn.
DRAWN = {"a, b": (10, 24), "c/d: 'e'": (100, 7), "日本 {x}": (20, 40)}


def shares(drawn: dict[str, tuple[int, int]] = DRAWN, weight: float | None = None) -> tuple[TaskShare, ...]:
    """Shares of tasks whose rows are the longer the later they come."""
    lengths = dict(zip(drawn, range(2, 2 + len(drawn)), strict=True))
    rows = sum(count for _, count in drawn.values())
    tokens = sum(lengths[name] * count for name, (_, count) in drawn.items())
    return tuple(
        TaskShare(name, lengths[name] * size, lengths[name] * count / tokens, count / rows, count, count / size, weight)
        for name, (size, count) in drawn.items()
    )


def handed(shape: Any = "pairs", **changes: Any) -> Handed:
    """A run on three tasks whose rows are all written alike."""
    tasks = tuple(
        TaskFile(share, f"data/{number:02d}.jsonl", DRAWN[share.name][0], DRAWN[share.name][1], shape)
        for number, share in enumerate(shares(), 1)
    )
    settings: dict[str, Any] = {
        "tasks": tasks,
        "model": "owner/model",
        "lora": None,
        "training": TRAINING,
        "given": frozenset({"learning_rate", "adam_beta2"}),
        "dtype": "float32",
        "attention": None,
        "max_length": 512,
        "packing": False,
        "seed": 3,
        "templated": shape in ("asked", "messages"),
    }
    return Handed(**settings | changes)
