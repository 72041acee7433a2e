"""Steer toward what you want: own data to train on, and a folder with a few examples of the goal."""

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

WORDS = [f"{a}{b}{c}" for a in "bdgkm" for b in "aeiou" for c in "lnrst"]
SOURCES = {
    "spell": [{"prompt": f"Spell {word}.", "completion": " ".join(word)} for word in WORDS],
    "shout": [{"prompt": f"Shout {word}.", "completion": word.upper()} for word in WORDS],
    "count": [{"prompt": f"After {n} comes?", "completion": str(n + 1)} for n in range(150)],
}
# What is wanted: twenty examples. Eight of them stand in a source too, and are taken out of it.
WANTED = [*WORDS[:8], *(f"{word}ap" for word in WORDS[-12:])]
GOALS = {"loud": [{"prompt": f"Shout {word}.", "completion": word.upper()} for word in WANTED]}


def write(folder: Path, tasks: dict) -> Path:
    """Write one JSON Lines file a task."""
    folder.mkdir()
    for name, rows in tasks.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


with tempfile.TemporaryDirectory() as where:
    data, goals = write(Path(where) / "data", SOURCES), write(Path(where) / "goals", GOALS)
    comparison = ap.compare(
        ["uniform", "adapt"],
        model=MODEL,
        tasks=data,
        targets=goals,
        objective="mean",
        budget="1500",
        out=Path(where) / "comparison",
        validation={"every": "50%", "examples_per_task": 4},
        training={"learning_rate": 2e-3, "per_device_train_batch_size": 8},
    )

    # One seed and a budget of seconds: what was drawn says more than the gap in loss.
    for name, (run,) in ap.runs.read_comparison(comparison.path).items():
        final, shares = run.summary["final"], run.mixture["token_averaged"]
        drawn = ", ".join(f"{task} {share:.0%}" for task, share in shares.items())
        print(f"{name:<8} target {final['target']:.3f} ± {final['target_se']:.3f}; drawn: {drawn}")
    for finding in run.summary["findings"]:
        print("found:", finding)
