"""Tiny runs to hand on, and a model with a chat template."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from apportion.plans.build import load_data
from apportion.plans.recipe import parse_recipe
from apportion.plans.run import Run, run_recipe
from apportion.runs import read_run
from tests.training.runs import TINY

# Marks answers, so that any trainer finds them.
TEMPLATE = (
    "{% for message in messages %}{{ '[' + message['role'] + ']' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
WORDS = [f"{a}{b}{c}" for a in "bdgkm" for b in "aeiou" for c in "lnrst"]
PAIRS = {
    "spell, it": [{"prompt": f"Spell {word}.", "completion": " ".join(word)} for word in WORDS],
    "shout": [{"prompt": f"Shout {word}.", "completion": word.upper()} for word in WORDS[:24]],
}


def chat(*turns: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(turns)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]}


CHATS = {
    "spell, it": [chat(f"Spell {word}.", " ".join(word)) for word in WORDS],
    "both": [chat(f"Shout {word}.", word.upper(), f"Now spell {word}.", " ".join(word)) for word in WORDS[:24]],
}
TEXTS = {"notes": [{"text": f"The word {word} is read {' '.join(word)}."} for word in WORDS]}


def written(folder: Path, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in tasks.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def trained(folder: Path, tasks: dict[str, list[dict[str, Any]]], **blocks: Any) -> Run:
    """A run on these tasks, which lie beside it."""
    data = written(folder / "data", tasks)
    values = {**TINY, "tasks": {"path": str(data), "max_length": 64}, "budget": 900, **blocks}
    return run_recipe(parse_recipe(values), folder / "run")


def chat_model(folder: Path, start: Path) -> Path:
    """The model of a run, with a chat template on its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.add_tokens(["[user]", "[assistant]"], special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(start)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Labelled = Counter[tuple[tuple[int, ...], tuple[int, ...]]]


def labelled(rows: Any) -> Labelled:
    """How often each (ids, labels) stands in a trainer's data set."""
    return Counter((tuple(row["input_ids"]), tuple(row["labels"])) for row in rows)


def encoded(run: Run, times: dict[str, tuple[int, int]]) -> tuple[Labelled, dict[str, Labelled]]:
    """The run's train splits as it trained on them: all passes that are whole, and by task what the rest is of."""
    data = load_data(parse_recipe(read_run(run.path).recipe))
    whole: Labelled = Counter()
    each: dict[str, Labelled] = {}
    for task in data.tasks.tasks:
        pairs = [task.train.example(i) for i in range(len(task.train))]
        found = Counter((tuple(np.asarray(ids).tolist()), tuple(np.asarray(labels).tolist())) for ids, labels in pairs)
        each[task.name] = found
        for row, count in found.items():
            whole[row] += count * times[task.name][0]
    return whole, each
