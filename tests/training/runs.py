"""Tiny recipes on the playground, and the folders they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import Run, run_recipe

TINY: dict[str, Any] = {
    "model": {
        "config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
        },
        "tokenizer": {"train": "character"},
    },
    "tasks": {"source": "playground", "max_length": 96},
    "budget": 1500,
    "validation": {"every": "50%", "examples_per_task": 2},
    "training": {"learning_rate": 2e-3, "per_device_train_batch_size": 8},
}


def run(out: Path, *assignments: str) -> Run:
    return run_recipe(parse_recipe(overridden(TINY, assignments)), out)


def ledger(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "ledger.json").read_text())


def history(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]


def weights(run: Run, name: str = "model.safetensors") -> bytes:
    return (run.path / "model" / name).read_bytes()
