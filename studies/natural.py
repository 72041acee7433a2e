"""Natural Instructions, shortened for a small model on a CPU, and base models pre-trained on its inputs."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from apportion import load_tasks
from apportion.plans.recipe import parse_recipe
from apportion.plans.run import run_recipe

# Characters kept of the definition and of the input; one instance in three of the categories that have more than MANY.
DEFINITION, INPUT, OUTPUT, MANY = 120, 200, 160, 1000
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 32, "sliding_window": 128},
}
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


ROOT = Path("runs/natural")
TASKS, BASES, TEXT = ROOT / "tasks", ROOT / "base", ROOT / "inputs.jsonl"
VALIDATION = 0.1


def write_tasks() -> None:
    """Write one JSONL file a category, from the task files under ``APPORTION_DATA``, unless they are there."""
    if TASKS.exists():
        return
    rows: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for file in sorted((data() / "natural-instructions").glob("*/*.json.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            content = json.load(stream)
        definition = cut(content["Definition"][0], DEFINITION)
        for instance in content["Instances"]:
            prompt = f"{definition}\n{cut(instance['input'], INPUT)}"
            rows[file.parent.name].append({"prompt": prompt, "completion": cut(instance["output"][0], OUTPUT)})
    TASKS.mkdir(parents=True)
    for category, examples in rows.items():
        kept = examples if len(examples) <= MANY else [e for e in examples if _third(e["prompt"])]
        (TASKS / f"{category}.jsonl").write_text("".join(json.dumps(example) + "\n" for example in kept))


def has_base(architecture: str) -> bool:
    """Whether the base model of an architecture is trained."""
    return (BASES / architecture / "summary.json").exists()


def write_base(architecture: str) -> None:
    """Pre-train a model from scratch on the training prompts as plain text; nothing that is validated on is in it."""
    if not TEXT.exists():
        collection = load_tasks(str(TASKS), validation=VALIDATION)
        prompts = [example.prompt for task in collection for example in task.train]
        TEXT.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in dict.fromkeys(prompts)))
    run_recipe(
        parse_recipe(
            {
                "model": {
                    "config": SHAPE | ARCHITECTURES[architecture],
                    "tokenizer": {"train": "bpe", "vocab_size": 2048},
                },
                "tasks": {"source": "jsonl", "path": str(TEXT), "max_length": 128, "validation": 0.01},
                "budget": "1.5M",
                "validation": {"every": "10%", "examples_per_task": 128},
                "training": {
                    "learning_rate": 3.0e-3,
                    "per_device_train_batch_size": 32,
                    "lr_scheduler_type": "linear",
                    "warmup_steps": 0.03,
                },
                "seed": 0,
            }
        ),
        BASES / architecture,
    )


def cut(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0]


def _third(prompt: str) -> bool:
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % 3 == 0


def data() -> Path:
    return Path(os.environ.get("APPORTION_DATA", "../shared/data"))
