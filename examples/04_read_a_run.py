"""Read a run folder: the curve, where the tokens went, and what every account cost. Nothing but the folder is needed."""

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
    path = Path(folder) / "run"
    ap.train(
        model=MODEL,
        tasks={"source": "playground", "scale": 0.05},
        budget="1500",
        mixture="proportional",
        out=path,
        validation={"every": "25%", "examples_per_task": 2},
        training={"learning_rate": 2e-3, "per_device_train_batch_size": 16},
    )

    record = ap.read_run(path)
    print(f"{record.method}, seed {record.seed}, finished: {record.finished}")

    # One record every hundredth of the budget; those at a validation carry losses.
    for entry in record.history:
        if "macro" in entry:
            tokens = entry["spent"].get("train", {}).get("supervised", 0)
            print(f"{tokens:>6,} supervised tokens: macro {entry['macro']:.3f}, worst {entry['worst']:.3f}")

    # Where the tokens went: the five tasks that got most.
    drawn = record.mixture["tasks"]
    for task in sorted(drawn, key=lambda name: -drawn[name]["supervised"])[:5]:
        numbers = drawn[task]
        print(f"{task:<8} {numbers['supervised']:>5,} tokens, {numbers['epochs']:.2f} epochs")

    # What it cost, by account: tokens with a label, tokens in all, positions with padding, FLOPs.
    for account, spent in record.spent.items():
        if spent["flops"]:
            tokens = " / ".join(f"{spent[kind]:,}" for kind in ("supervised", "processed", "padded"))
            print(f"{account:<10} {tokens}, {spent['flops']:.3g} FLOPs")
