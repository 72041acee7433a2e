"""Hand a learnt mixture on: its shares, a block for a recipe, and a folder for another trainer."""

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

with tempfile.TemporaryDirectory() as folder:
    run = ap.train(
        model=MODEL,
        tasks={"source": "playground", "max_length": 96, "names": ["copy", "reverse", "upper"]},
        budget=3_000,
        mixture="adapt",
        validation={"every": "50%", "examples_per_task": 4},
        training={"learning_rate": 2e-3, "per_device_train_batch_size": 16},
        out=Path(folder) / "run",
    )

    # What was drawn over the whole run: in tokens, as the mixture is meant, and in rows, as other trainers count.
    for share in ap.export(run).shares:
        print(
            f"{share.name:<8} {share.tokens:.1%} of the tokens, {share.rows:.1%} of the rows, {share.epochs:.2f} epochs"
        )

    done = ap.export(run, to="trl", out=Path(folder) / "for-trl")
    print("\nIn a recipe:\n")
    print(done.block)
    print(
        "In the folder for TRL:", ", ".join(sorted(str(file.relative_to(done.path)) for file in done.path.rglob("*.*")))
    )
    print("There:", done.command)
    for note in done.notes:
        print("-", note)

    first = next((done.path / "data").glob("*.jsonl")).read_text("utf-8").splitlines()[0]
    print("A row:", json.loads(first))
    card = (run.path / "model" / "README.md").read_text("utf-8").splitlines()
    print("The model's card:", next(line for line in card if line.startswith("# ")))
