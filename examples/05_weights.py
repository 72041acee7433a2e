"""Weigh examples by likeness to questions of your own while the mixture shares out the tasks."""

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
COMMON = {
    "model": MODEL,
    "tasks": {"source": "playground", "max_length": 96},
    "budget": 2_500,
    "mixture": ap.mixtures.Temperature(t=2.0),
    "validation": {"every": "50%", "examples_per_task": 4},
    "training": {"learning_rate": 2e-3, "per_device_train_batch_size": 16},
}

with tempfile.TemporaryDirectory() as folder:
    # What the model should serve: a handful of prompts and answers, one JSON object a line.
    anchors = Path(folder) / "wanted.jsonl"
    rows = [{"prompt": f"reverse: {word}", "completion": word[::-1]} for word in ("stone", "river", "cloud", "ember")]
    anchors.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    for name, weights in {
        "none": "uniform",
        "by states": ap.weights.Adapt(files=(str(anchors),), centred=True, tau=0.1, normalise=True),
        "by loss": ap.weights.LinUpper(),
    }.items():
        run = ap.train(**COMMON, weights=weights, out=Path(folder) / name)
        last = [record for record in ap.read_run(run.path).history if "weights" in record][-1:]
        said = "".join(
            f", weights {w['mean']:.2f} on average, effective sample {w['ess']:.0%}"
            for r in last
            if (w := r["weights"])
        )
        spent = sum(account["flops"] for account in run.summary["spent"].values())
        print(f"{name:<10} macro loss {run.summary['final']['macro']:.3f}, {spent:.2e} FLOPs in all{said}")
