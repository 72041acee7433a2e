"""A tiny model with its tokenizer, saved as a user would have it, and small tasks in the harness's own format."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from apportion.evaluation.metered import Metered
from apportion.models.flops import ModelFlops
from apportion.tasks import TasksSpec, load_tokenizer_trained
from tests.tiny import tiny_model


@cache
def tokenizer() -> Any:
    return load_tokenizer_trained(TasksSpec(source="playground"), "bpe", 300)


def model(architecture: str = "llama", **extra: Any) -> Any:
    ids = {key: getattr(tokenizer(), key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return tiny_model(architecture, vocab=len(tokenizer()), max_position_embeddings=512, **ids, **extra).eval()


def asker(module: Any, batch_size: int = 4, *, dry: bool = False) -> Metered:
    return Metered(module, tokenizer(), ModelFlops.of(module), batch_size, dry=dry)


def choice_task(folder: Path, questions: list[tuple[str, list[str], int]], name: str = "choices") -> str:
    """Write a task of questions with choices, and return its file."""
    rows = [{"question": q, "choices": choices, "answer": answer} for q, choices, answer in questions]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _task(
        folder,
        name,
        output_type="multiple_choice",
        doc_to_text="{{question}}",
        doc_to_choice="{{choices}}",
        doc_to_target="{{answer}}",
        metric_list=[{"metric": "acc"}],
    )


def writing_task(folder: Path, questions: list[tuple[str, str]], name: str = "writing", most: int = 8) -> str:
    """Write a task of questions with an answer to write, and return its file."""
    rows = [{"question": question, "answer": answer} for question, answer in questions]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _task(
        folder,
        name,
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["\n"], "max_gen_toks": most, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )


def _task(folder: Path, name: str, **settings: Any) -> str:
    file = folder / f"{name}.yaml"
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
    file.write_text(yaml.safe_dump({"task": name, **data, "test_split": "test", **settings}))
    return str(file)
