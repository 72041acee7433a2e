"""A run killed at any moment and started again ends, byte for byte, where it would have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe

RECIPE = """
model:
  config: {model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2,
           num_key_value_heads: 2, max_position_embeddings: 128, tie_word_embeddings: true, attention_dropout: 0.1}
  tokenizer: {train: character}
tasks: {source: playground, max_length: 96}
budget: 6k
mixture: {type: uniform}
validation: {every: 10%, examples_per_task: 2}
training: {learning_rate: 2.0e-3, per_device_train_batch_size: 8, gradient_accumulation_steps: 2, lr_scheduler_type: cosine}
seed: 3
"""


def command(recipe: Path, out: Path, mixture: str) -> list[str]:
    return [
        *(sys.executable, "-c", "from apportion.cli.main import main; main()"),
        *("train", str(recipe), "--out", str(out), "--json", "--set", f"mixture={mixture}"),
    ]


def start(recipe: Path, out: Path, mixture: str) -> subprocess.Popen[str]:
    # One thread: the order of a threaded sum is not ours to promise.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(recipe, out, mixture), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def targets(tmp_path: Path) -> str:
    """Return a ``targets`` block with data of its own, of which a part is trained on."""
    goals = tmp_path / "goals"
    goals.mkdir()
    for name, step in (("twos", 2), ("threes", 3)):
        rows = ({"prompt": f"{name} {n}", "completion": str(n * step)} for n in range(20))
        (goals / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return f"{{path: '{goals}', train: 3, importance: {{twos: 2}}}}"


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def kill_after(process: subprocess.Popen[str], out: Path, checkpoints: int) -> None:
    """SIGKILL once that many checkpoints were written."""
    seen: set[str] = set()
    while len(seen) < checkpoints:
        assert process.poll() is None, f"ended too early: {process.communicate()[1]}"
        seen |= {p.name for p in (out / "checkpoints").glob("step-*")}
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()


def history(out: Path) -> list[dict]:
    records = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.mark.parametrize(
    "mixture",
    [
        "{type: adapt, refresh: 7, reads: 3}",
        "{type: adapt, refresh: 9%, reads: 3}",
        "progress",
        "{type: probes, rounds: [0.3, 0.6], steps: 2, batch: 4, examples: 40, keep: 2}",
    ],
)
def test_killed_twice_equals_never_stopped(tmp_path, mixture):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    check_the_same(recipe, whole, broken, mixture)


@pytest.mark.parametrize("mixture", ["{type: adapt, refresh: 7, reads: 3}", "adapt", "{type: probes, batch: 4}"])
def test_killed_twice_equals_never_stopped_with_targets_that_are_trained_on(tmp_path, targets, mixture):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{RECIPE}targets: {targets}\n")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    check_the_same(recipe, whole, broken, mixture)
    final = json.loads((broken / "summary.json").read_text())["final"]
    assert final["target"] == pytest.approx((2 * final["targets"]["twos"] + final["targets"]["threes"]) / 3)
    drawn = json.loads((broken / "mixture.json").read_text())["tasks"]
    assert list(drawn)[-2:] == ["threes", "twos"] and all(0 < drawn[name]["epochs"] <= 3 for name in ("threes", "twos"))


def check_the_same(recipe: Path, whole: Path, broken: Path, mixture: str) -> None:
    # In this process: one that starts, and imports everything, costs more than the run.
    run_recipe(parse_recipe(overridden(yaml.safe_load(recipe.read_text()), [f"mixture={mixture}"])), whole)
    for checkpoints in (1, 3):
        kill_after(start(recipe, broken, mixture), broken, checkpoints)
        assert not (broken / "summary.json").exists()
    finish(start(recipe, broken, mixture))

    for name in (
        "ledger.json",
        "mixture.json",
        "validation.json",
        "recipe.yaml",
        "model/model.safetensors",
        "model/config.json",
        "model/README.md",
    ):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert history(broken) == history(whole)
    expected, got = (json.loads((out / "summary.json").read_text()) for out in (whole, broken))
    assert {**got, "seconds": None} == {**expected, "seconds": None}
