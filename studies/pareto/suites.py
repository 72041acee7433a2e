"""The two suites: what is trained on, what it is toward, and what is measured in and out of its domain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies import natural

DATA = Path("runs/pareto/data")
SUITES = ("quality", "natural")
# Total FLOPs of a run: steering, selection and proxies are paid from them.
BUDGETS = {"quality": (3e10, 1e11, 3e11), "natural": (2e11, 6e11, 1.8e12)}
SKILLS = ("sort", "swap")
CATEGORIES = (
    "question-answering",
    "summarization",
    "information-extraction",
    "pos-tagging",
    "question-rewriting",
)
# Of each set out of the domain, at most so many examples; of a prompt so many characters, as the house's tasks have.
MOST, PROMPT = 100, 320


def values(suite: str) -> dict[str, Any]:
    """Return the recipe of a suite, without budget, method and seed."""
    training = {"per_device_eval_batch_size": 64, "lr_scheduler_type": "linear", "warmup_steps": 0.03}
    if suite == "natural":
        return {
            "model": {"name": "runs/natural/base/llama/model"},
            "tasks": {
                "source": "jsonl",
                "path": str(natural.TASKS),
                "validation": natural.VALIDATION,
                "max_length": 160,
            },
            "targets": {"tasks": list(CATEGORIES)},
            "validation": {"every": 1.0, "examples_per_task": 2},
            "training": {**training, "learning_rate": 2.0e-3, "per_device_train_batch_size": 16},
        }
    shape = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128}
    return {
        "model": {
            "config": {"model_type": "llama", **shape, **heads, "tie_word_embeddings": True},
            "tokenizer": {"train": "character"},
        },
        "tasks": {"source": "playground", "suite": "quality", "max_length": 64},
        "targets": {"source": "playground", "suite": "skills", "names": list(SKILLS), "scale": 0.35, "train": 4},
        "validation": {"every": 1.0, "examples_per_task": 2, "examples_per_target": 32},
        "training": {**training, "learning_rate": 1.0e-3, "per_device_train_batch_size": 16},
    }


def prepare() -> None:
    """Write what the suites read, unless it is there."""
    natural.write_tasks()
    if not natural.has_base("llama"):
        natural.write_base("llama")
    if DATA.exists():
        return
    _write("natural", "gsm8k", _gsm8k())
    for file in sorted((natural.data() / "eval" / "bbh").glob("*.json")):
        examples = json.loads(file.read_text("utf-8"))["examples"]
        _write("natural", f"bbh-{file.stem}", [{"prompt": e["input"], "completion": e["target"]} for e in examples])
    _write_skills()


def _gsm8k() -> list[dict[str, str]]:
    lines = (natural.data() / "eval" / "gsm8k" / "test.jsonl").read_text("utf-8").splitlines()
    return [{"prompt": row["question"], "completion": row["answer"]} for row in map(json.loads, lines)]


def _write_skills() -> None:
    from apportion import load_tasks

    for task in load_tasks(source="playground", suite="skills", scale=0.35):
        if task.name not in SKILLS:
            rows = [{"prompt": e.prompt, "completion": e.completion} for e in (*task.validation, *task.train)]
            _write("quality", task.name, rows)


def _write(suite: str, name: str, rows: list[dict[str, str]]) -> None:
    folder = DATA / suite
    folder.mkdir(parents=True, exist_ok=True)
    cut = [{"prompt": natural.cut(row["prompt"], PROMPT), "completion": row["completion"]} for row in rows[:MOST]]
    text = "".join(json.dumps(row) + "\n" for row in (cut if suite == "natural" else rows[:MOST]))
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
