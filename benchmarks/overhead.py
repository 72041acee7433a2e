"""Seconds a step of a uniform run over plain Hugging Face Trainer on the same batches, interleaved in one process.

    python benchmarks/overhead.py [--json] [--rounds 7]

Both train the same Llama with the same optimizer on the same padded batches. Rounds alternate; the ratio is the median
over rounds of apportion's seconds a step over Trainer's in the same round. Peak memory is measured in a child process
each, as the highest resident size above that before training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from apportion.models.flops import ModelFlops
from apportion.plans.build import assemble, load_data, make_model, make_trainer
from apportion.plans.recipe import parse_recipe
from apportion.training.recorder import Recorder

STEPS, BATCH = 12, 16
RECIPE: dict[str, Any] = {
    "model": {
        "config": {
            "model_type": "llama",
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 256,
        },
        "tokenizer": {"train": "character"},
    },
    "tasks": {"source": "playground", "max_length": 128},
    "budget": "1M",
    "validation": {"every": "100%", "examples_per_task": 1},
    "training": {"per_device_train_batch_size": BATCH, "learning_rate": 1e-4, "lr_scheduler_type": "constant"},
}


class Recorded(Dataset):
    """The examples of an apportion run, padded as it padded them, for Trainer to draw in order."""

    def __init__(self, rows: list[dict[str, torch.Tensor]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.rows[i]


class InOrder(Trainer):
    """Trainer without shuffling: the same batches in the same order."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def parts() -> tuple[Any, Any, Any, Any]:
    recipe = parse_recipe(RECIPE)
    data = load_data(recipe)
    flops = ModelFlops.of(make_model(recipe, data, meta=True))
    return recipe, data, flops, assemble(recipe, data, flops, Path(tempfile.mkdtemp()))


def record_batches(steps: int) -> list[dict[str, torch.Tensor]]:
    """Draw the batches that an apportion run draws."""
    _, _, _, built = parts()
    rows = []
    for _ in range(steps):
        (batch,) = built.stream.next_step(built.mixture.p.numpy()).batches
        labels = torch.full_like(batch.input_ids, -100)
        labels.view(-1)[batch.positions + 1] = batch.targets
        rows += [
            {"input_ids": batch.input_ids[k], "attention_mask": batch.attention_mask[k], "labels": labels[k]}
            for k in range(len(batch))
        ]
    return rows


def run_apportion(steps: int) -> float:
    recipe, data, flops, built = parts()
    recorder = Recorder(
        data.tasks.names,
        built.report,
        every=1.0,
        ledger=built.ledger,
        prices=flops,
        affords=lambda price: True,
        proportions=lambda: built.mixture.p,
        append=lambda record: None,
    )
    trainer = make_trainer(make_model(recipe, data), data, built, recorder, Path(built.args.output_dir))
    trainer.args.max_steps = steps
    return timed(trainer, steps)


def run_trainer(rows: list[dict[str, torch.Tensor]], steps: int) -> float:
    recipe, data, _, _built = parts()
    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        max_steps=steps,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = InOrder(model=make_model(recipe, data), args=args, train_dataset=Recorded(rows))
    trainer.data_collator = lambda part: {key: torch.stack([row[key] for row in part]) for key in part[0]}
    trainer.remove_callback(PrinterCallback)
    return timed(trainer, steps)


def timed(trainer: Trainer, steps: int) -> float:
    """Return the median seconds of a step, the first two left out as warm-up."""
    marks: list[float] = []
    step = trainer.training_step

    def marked(*args: Any, **kwargs: Any) -> Any:
        marks.append(time.perf_counter())
        return step(*args, **kwargs)

    trainer.training_step = marked
    trainer.train()
    assert len(marks) >= steps, (len(marks), steps)
    # From one step's start to the next: drawing, padding, charging, the optimizer and callbacks are all inside.
    return float(np.median(np.diff(marks[:steps])[2:]))


def peak(kind: str) -> float:
    """Return the peak resident megabytes that training adds, in a child process."""
    code = f"import overhead; print(overhead.added_memory({kind!r}))"
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def high_water() -> float:
    """Return this process's own peak resident megabytes (a child's rusage would start at its parent's)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def added_memory(kind: str) -> float:
    rows = record_batches(STEPS)
    before = high_water()
    run_apportion(STEPS) if kind == "apportion" else run_trainer(rows, STEPS)
    return high_water() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = record_batches(STEPS)
    ratios, ours, theirs = [], [], []
    for round_ in range(options.rounds):
        # The order alternates, so that a machine that slows down favours neither.
        for kind in ("apportion", "trainer") if round_ % 2 else ("trainer", "apportion"):
            (ours if kind == "apportion" else theirs).append(
                run_apportion(STEPS) if kind == "apportion" else run_trainer(rows, STEPS)
            )
        ratios.append(ours[-1] / theirs[-1])
    result = {
        "overhead_ratio": round(statistics.median(ratios), 4),
        "peak_memory_ratio": round(peak("apportion") / peak("trainer"), 4),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"apportion {statistics.median(ours) * 1e3:.1f} ms a step, Trainer {statistics.median(theirs) * 1e3:.1f} ms")
    print(f"rounds: {', '.join(f'{r:.3f}' for r in ratios)}")
    print(
        f"overhead ratio {result['overhead_ratio']:.3f} (at most 1.05), memory ratio {result['peak_memory_ratio']:.3f}"
    )


if __name__ == "__main__":
    main()
