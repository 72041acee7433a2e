"""Two real processes train as one does: same draws, losses, mixture and weights, one folder, one ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from apportion.plans.recipe import overridden
from tests.training.runs import TINY, history, ledger, run

ROOT = Path(__file__).parents[2]
# Twenty steps of eight examples.
SETTINGS = ("budget=900", "validation.every=25%", "validation.examples_per_task=1")
ONE = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
TWO = ("training.per_device_train_batch_size=4",)
METHODS = {
    "uniform": (),
    "adapt": ("mixture.type=adapt", "mixture.refresh=4", "mixture.reads=2", "mixture.examples_per_task=1"),
    "single": ("mixture.type=adapt", "mixture.refresh=4", "training.per_device_eval_batch_size=200"),
    "forward": (
        "mixture.type=adapt",
        "mixture.estimator=forward",
        "mixture.refresh=8",
        "mixture.examples_per_task=1",
    ),
    "loss": ("mixture.type=loss", "mixture.every=0.1", "mixture.examples_per_task=1"),
    "packed": ("packing=true", "mixture.type=adapt", "mixture.refresh=4", "mixture.examples_per_task=1"),
    "weights": ("weights.type=adapt", "weights.normalise=true", "weights.refresh=5", "weights.anchors=20"),
    "linupper": ("weights.type=linupper", "weights.warmup=2", "mixture.type=adapt", "mixture.examples_per_task=1"),
    "bm25": ("weights.type=bm25",),
}


def launched(tmp_path, out, *assignments):
    """Run the command line in two processes, as torchrun starts them."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(overridden(TINY, assignments)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["--no-python", sys.executable, "-c", "from apportion.cli.main import main; main()"]
    command += ["train", str(recipe), "--out", str(out), "--json"]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_with_the_same_step(tmp_path, method):
    alone = run(tmp_path / "alone", *SETTINGS, *ONE, *METHODS[method])
    done = launched(tmp_path, tmp_path / "both", *SETTINGS, *TWO, *METHODS[method])
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)  # one process speaks, once
    both = type(alone)(tmp_path / "both", summary)
    records = [history(folder) for folder in (both, alone)]
    assert len(records[0]) == len(records[1]) and records[1][-1]["step"] >= 20
    for mine, theirs in zip(*records, strict=True):
        assert mine["step"] == theirs["step"]
        for key in ("loss", "macro", "worst", "objective", "lr", "mixture", "weights"):
            assert (key in mine) == (key in theirs)
            if key in mine:
                assert mine[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-6)
    weights = [load_file(folder.path / "model" / "model.safetensors") for folder in (both, alone)]
    assert all(float((weights[0][name] - weights[1][name]).abs().max()) < 1e-6 for name in weights[1])
    for account, spent in ledger(alone)["accounts"].items():
        mine = ledger(both)["accounts"][account]
        # A rank for which a step has no example goes through one padded row of eight positions.
        assert mine.pop("padded") - spent.pop("padded") in (0, 8)
        assert mine == pytest.approx(spent)
    mixtures = [json.loads((folder.path / "mixture.json").read_text()) for folder in (both, alone)]
    assert mixtures[0]["tasks"] == mixtures[1]["tasks"]
