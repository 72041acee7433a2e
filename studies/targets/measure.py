"""The targets' losses on examples that no run ever had."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from apportion.models.loading import quietly
from apportion.signals.losses import example_sums
from apportion.tasks.encoding import encode_examples
from apportion.tasks.example import Example
from apportion.tasks.validation import batched


def unseen_losses(model: Path, unseen: Path, max_length: int) -> dict[str, float]:
    """Return the mean loss over supervised tokens by target.

    Args:
        model: A saved model with its tokenizer.
        unseen: A folder of JSONL files of ``prompt`` and ``completion``, one a target.
        max_length: Longest example, in tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    with quietly():
        network = AutoModelForCausalLM.from_pretrained(str(model), use_safetensors=True)
    found = {}
    for file in sorted(unseen.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        examples = [Example(row["prompt"], row["completion"], f"{file.stem}-{i}") for i, row in enumerate(rows)]
        split = encode_examples(examples, tokenizer, max_length)
        batches = batched([(0, split, i) for i in range(len(split))], 256, tokenizer.pad_token_id)
        sums, counts = example_sums(network, batches, "cpu")
        found[file.stem] = float(sums.sum() / counts.sum())
    return found
