"""Train on your own data: one JSON Lines file a task, rows with a prompt and a completion."""

import json
import tempfile
from pathlib import Path

import apportion as ap

MODEL = {
    "config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
    "tokenizer": {"train": "character"},
}

ROWS = {
    "double": [{"prompt": f"Double {n}.", "completion": str(2 * n)} for n in range(120)],
    "spell": [{"prompt": f"Spell {n} backwards.", "completion": str(n)[::-1]} for n in range(100, 400)],
    # A row may also be a conversation, an instruction with input and output, or plain text.
    "greet": [
        {"messages": [{"role": "user", "content": f"Hello from {n}"}, {"role": "assistant", "content": f"Hi, {n}!"}]}
        for n in range(40)
    ],
}

with tempfile.TemporaryDirectory() as folder:
    data = Path(folder) / "data"
    data.mkdir()
    for task, rows in ROWS.items():
        (data / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    tasks = ap.load_tasks(data, validation=0.1)
    for task in tasks:
        print(f"{task.name:<7} {len(task.train)} to train on, {len(task.validation)} to validate on")
    for finding in tasks.findings:
        print("found:", finding)

    run = ap.train(
        model=MODEL,
        tasks=tasks,
        budget="20%",
        mixture={"type": "temperature", "t": 2.0, "max_epochs": 2},
        out=Path(folder) / "run",
        validation={"every": "50%", "examples_per_task": 4},
        training={"learning_rate": 2e-3, "per_device_train_batch_size": 8},
    )
    for task, loss in run.summary["final"]["validation"].items():
        print(f"{task:<7} validation loss {loss:.3f}")
