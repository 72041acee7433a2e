"""Two real processes train as one does: same draws, losses, mixture and weights, one folder, one ledger."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from apportion._errors import ApportionError
from apportion.plans.recipe import overridden
from tests.training.runs import TINY, history, ledger, run

ROOT = Path(__file__).parents[2]
# Twenty steps of eight examples.
SETTINGS = ("budget=900", "validation.every=25%", "validation.examples_per_task=1")
ONE = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
TWO = ("training.per_device_train_batch_size=4",)
ADAPT = ("mixture.type=adapt", "mixture.refresh=4", "mixture.reads=2", "mixture.examples_per_task=1")
METHODS = {
    "uniform": (),
    "adapt": ADAPT,
    # One measuring batch, which cannot be shared out; rows that several examples share; weights of mean 1 in a step.
    "packed and weighed": (
        *ADAPT,
        "packing=true",
        "training.per_device_eval_batch_size=200",
        "weights={type: adapt, normalise: true, refresh: 5, anchors: 20}",
    ),
    "losses": (
        "mixture={type: loss, refresh: 2, max_cost: 0.5, examples_per_task: 1}",
        "weights={type: linupper, warmup: 2}",
    ),
    "forward": (
        "mixture={type: adapt, estimator: forward, refresh: 8, examples_per_task: 1}",
        "weights.type=bm25",
    ),
    # Of three tasks the bandit leaves even draws within the run.
    "against a reference": (
        "tasks.names=[copy, reverse, sort]",
        "mixture=bandit",
        "weights={type: doremi, reference: '${APPORTION_REFERENCE}'}",
    ),
}


MAIN = "from apportion.cli.main import main; main()"
# What is registered first is called last: after the process has left the others.
NAMES_THREADS = r"""
import atexit, os, pathlib
threads = pathlib.Path("/proc/self/task")
def names(): return " ".join(t.read_text().strip() for t in threads.glob("*/comm"))
# One write a process: both have the same stderr, and a line in pieces would mix with the other's.
atexit.register(lambda: os.write(2, f"left: {names()}\n".encode()))
"""


def launched(tmp_path, out, *assignments, main=MAIN, base=TINY):
    """Run the command line in two processes, as torchrun starts them."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(overridden(base, assignments)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["--no-python", sys.executable, "-c", main]
    command += ["train", str(recipe), "--out", str(out), "--json"]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_with_the_same_step(tmp_path, monkeypatch, method):
    if method == "against a reference":
        reference = run(tmp_path / "reference", *SETTINGS, *METHODS[method][:1])
        monkeypatch.setenv("APPORTION_REFERENCE", str(reference.path))
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
    for name, mine in mixtures[0]["tasks"].items():
        theirs = mixtures[1]["tasks"][name]
        assert ("weight" in mine) == ("weight" in theirs)
        if "weight" in mine:
            assert mine.pop("weight") == pytest.approx(theirs.pop("weight"), rel=1e-5)
        assert mine == theirs


def test_no_thread_that_talks_to_the_others_outlives_the_run(tmp_path):
    done = launched(tmp_path, tmp_path / "run", *SETTINGS, *TWO, main=NAMES_THREADS + MAIN)
    assert done.returncode == 0, done.stderr
    left = [line for line in done.stderr.splitlines() if "left:" in line]
    assert len(left) == 2
    assert not any("gloo" in line for line in left)


def test_two_processes_go_on_where_they_stopped(tmp_path):
    settings = (*SETTINGS, *TWO, *ADAPT, "model.config.attention_dropout=0.1")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert launched(tmp_path, whole, *settings).returncode == 0
    shutil.copytree(whole, broken)
    # What a run that is killed after its last checkpoint leaves.
    shutil.rmtree(broken / "model")
    for name in ("summary.json", "ledger.json", "mixture.json"):
        (broken / name).unlink()
    with pytest.raises(ApportionError, match="began with 2 processes"):
        run(broken, *settings)
    again = launched(tmp_path, broken, *settings)
    assert again.returncode == 0, again.stderr
    for name in ("ledger.json", "mixture.json", "model/model.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    newest = max((broken / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    assert {path.name for path in newest.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_a_mistake_ends_both_with_its_sentence_and_no_folder(tmp_path):
    done = launched(tmp_path, tmp_path / "run", "mixture.type=adopt")
    assert done.returncode != 0 and "did you mean 'adapt'?" in done.stderr
    assert not (tmp_path / "run").exists()


def test_child_runs_are_made_by_all_and_charged_once(tmp_path, llama):
    """Two LoRA teachers, then what is left of a budget in FLOPs."""
    settings = ("kind.kl=0", "kind.teachers={budget: 100, groups: {copy: a, reverse: b}}", "budget=3e8 FLOPs", *TWO)
    launched(tmp_path, tmp_path / "run", *settings, base=llama)
    spent = json.loads((tmp_path / "run" / "ledger.json").read_text())["accounts"]
    theirs = [json.loads(file.read_text()) for file in tmp_path.glob("run/teachers/*/ledger.json")]
    total = sum(account["flops"] for its in theirs for account in its["accounts"].values())
    assert len(theirs) == 2 and spent["proxy"]["flops"] == pytest.approx(total)
    assert 0.9 * 3e8 < sum(account["flops"] for account in spent.values()) <= 3e8
