"""Train a small model on twenty small tasks within a budget, learning the mixture on the way."""

import tempfile
from pathlib import Path

import apportion as ap

MODEL = {
    "config": {
        "model_type": "llama",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
    "tokenizer": {"train": "character"},
}

with tempfile.TemporaryDirectory() as folder:
    # A path or a Hub name works as well; the playground makes its tasks up.
    tasks = ap.load_tasks(source="playground", scale=0.05)

    run = ap.train(
        model=MODEL,
        tasks=tasks,
        budget="2k",  # supervised tokens; also "5%", "2M processed", {"total": "1e17 FLOPs"}
        mixture=ap.mixtures.Adapt(refresh=5),
        out=Path(folder) / "run",
        validation={"every": "50%", "examples_per_task": 2},
        training={"learning_rate": 2e-3, "per_device_train_batch_size": 16},
    )

    final, spent = run.summary["final"], run.summary["spent"]
    print(f"macro validation loss {final['macro']:.3f}, worst task {final['worst']:.3f}")
    print(f"trained on {spent['train']['supervised']:,} supervised tokens of 2,000")
    for account in ("train", "validation", "meta"):
        print(f"{account:<10} {spent[account]['flops']:.3g} FLOPs")
    print("report:", run.report().name)
