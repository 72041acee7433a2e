"""Runs are compared only where budget, data, lengths, model and validation are the same; else it is said what differs."""

import pytest

from apportion.runs import RunFolder, read_run
from apportion.runs.equality import differences

RECIPE = {
    "model": {"name": "tiny"},
    "tasks": {"path": "data", "max_length": 128},
    "validation": {"every": 0.05, "examples_per_task": 64},
}
EXAMPLES = {"a": {"ids": ["x", "y"], "nll": [1.0, 2.0], "supervised": [3, 4]}}


def run(path, seed=0, limit=60_000, fingerprint="f", examples=EXAMPLES, **recipe):
    with RunFolder.create(path, {**RECIPE, **recipe, "seed": seed}) as folder:
        folder.write_ledger({"budget": {"unit": "supervised", "limit": limit}, "accounts": {}})
        folder.write_validation({"step": 1, "tasks": examples})
        folder.write_summary({"fingerprint": fingerprint})
    return read_run(path)


def arms(tmp_path, **changes):
    return {"uniform": [run(tmp_path / "u")], "adapt": [run(tmp_path / "a", **changes)]}


def test_methods_seeds_losses_and_training_may_differ(tmp_path):
    other = {"a": {**EXAMPLES["a"], "nll": [0.5, 0.7]}}
    changes = {"mixture": {"type": "adapt"}, "training": {"learning_rate": 1}, "seed": 3, "examples": other}
    assert differences(arms(tmp_path, **changes)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 30_000}, "budget (60,000 supervised tokens in uniform, 30,000 supervised tokens in adapt)"),
        ({"fingerprint": "g"}, "data (uniform against adapt)"),
        ({"tasks": {"max_length": 64}}, "tasks.max_length (128 in uniform, 64 in adapt)"),
        ({"model": {"name": "other"}}, "model (uniform against adapt)"),
        ({"validation": {"every": 0.1}}, "validation.every (0.05 in uniform, 0.1 in adapt)"),
        (
            {"validation": {"examples_per_task": 8}},
            "validation.examples_per_task (64 in uniform, 8 in adapt)",
        ),
        (
            {"examples": {"a": {"ids": ["x", "z"], "nll": [1.0, 2.0], "supervised": [3, 4]}}},
            "validation examples (uniform against adapt)",
        ),
    ],
)
def test_what_differs_is_named(tmp_path, changes, said):
    assert differences(arms(tmp_path, **changes)) == [said]


def test_an_arm_that_differs_in_itself_is_named_by_its_seeds(tmp_path):
    both = [run(tmp_path / "0"), run(tmp_path / "1", seed=1, limit=500)]
    assert differences({"adapt": both}) == [
        "budget (60,000 supervised tokens in adapt seed 0, 500 supervised tokens in adapt seed 1)"
    ]
