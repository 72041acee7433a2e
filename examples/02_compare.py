"""Compare three mixtures under one budget, with two seeds each, and print what each was worth."""

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
    comparison = ap.compare(
        ["uniform", "proportional", ap.mixtures.Loss(examples_per_task=4)],
        model=MODEL,
        tasks={"source": "playground", "scale": 0.05},
        budget="1500",
        out=Path(folder) / "comparison",
        seeds=(0, 1),
        validation={"every": "50%", "examples_per_task": 2},
        training={"learning_rate": 2e-3, "per_device_train_batch_size": 16},
    )

    # Differences smaller than the range over seeds are no differences; this budget is far too small to find one.
    for name, arm in comparison.summary["arms"].items():
        macro = arm["final"]["macro"]
        flops = arm["total_flops"]["mean"]
        print(
            f"{name:<13} macro {macro['mean']:.3f} ({macro['min']:.3f} to {macro['max']:.3f}), {flops:.3g} FLOPs in all"
        )
    print("best baseline:", comparison.summary["best_baseline"])
    print("report:", comparison.report().name)
