"""A mixture that asks for trials: they are runs of their own, charged to the run, and it is told how they ended."""

import json
from pathlib import Path

import pytest
import torch

from apportion._errors import ApportionError
from apportion.mixtures import Outcome, TaskSizes, Upsample
from tests.training.runs import run

GRID = ["targets={tasks: [copy, reverse]}", "mixture={type: upsample, share: grid, grid: [0.9, 0.1, 0.4], trial: 0.5}"]


def ledger(folder):
    return json.loads((folder / "ledger.json").read_text())


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(tmp_path_factory.mktemp("trials") / "run", *GRID, "budget=1500").path


def test_the_share_whose_trial_ended_lowest_is_trained_with(done):
    ended = {folder.name: summary(folder)["final"]["target"] for folder in (done / "trials").iterdir()}
    assert set(ended) == {"share-0.1", "share-0.4", "share-0.9"}
    best = float(min(ended, key=ended.get).removeprefix("share-"))
    final = json.loads((done / "mixture.json").read_text())["final"]
    assert final["copy"] + final["reverse"] == pytest.approx(best)
    (said,) = [finding for finding in summary(done)["findings"] if finding.startswith("Trials of 'upsample'")]
    assert all(f"{name} {loss:.3f}" in said for name, loss in ended.items())


def test_trials_spend_their_part_and_are_charged_in_full(done):
    spent = [ledger(done.joinpath("trials", name))["accounts"] for name in ("share-0.1", "share-0.4", "share-0.9")]
    assert all(0.9 * 750 < accounts["train"]["supervised"] <= 750 for accounts in spent)
    for column in ("supervised", "processed", "flops"):
        total = sum(account[column] for accounts in spent for account in accounts.values())
        assert ledger(done)["accounts"]["proxy"][column] == pytest.approx(total)


def test_trials_are_measured_on_what_methods_may_see_and_not_on_what_is_reported(done):
    def measured(folder):
        tasks = json.loads((folder / "validation.json").read_text())["tasks"]
        return {(name, one) for name, task in tasks.items() for one in task["ids"]}

    for trial in (done / "trials").iterdir():
        assert measured(trial) and not measured(trial) & measured(done)


def test_finished_trials_are_not_run_again(done, tmp_path):
    (done / "summary.json").unlink()
    before = {folder.name: (folder / "summary.json").stat().st_mtime_ns for folder in (done / "trials").iterdir()}
    spent = ledger(done)
    run(done, *GRID, "budget=1500")
    assert {f.name: (f / "summary.json").stat().st_mtime_ns for f in (done / "trials").iterdir()} == before
    assert ledger(done) == spent


def test_a_budget_in_flops_pays_for_the_trials(tmp_path):
    settings = [GRID[0], "mixture={type: upsample, share: grid, grid: [0.2, 0.8], trial: 0.2}"]
    accounts = ledger(run(tmp_path / "run", *settings, "budget=1e10 FLOPs").path)["accounts"]
    assert 0.2e10 < accounts["proxy"]["flops"] <= 0.4e10
    assert 0.9e10 < sum(account["flops"] for account in accounts.values()) <= 1e10


def test_what_is_told_of_equal_losses_is_the_smaller_share():
    asked, plain = Upsample(share="grid", grid=(0.5, 0.2, 0.9)), Upsample(share=0.3)
    sizes = TaskSizes(("a", "b"), *(torch.tensor(x, dtype=torch.float64) for x in ([5, 5], [9, 9], [1, 0])))
    assert set(asked.ask(sizes, Path())) == {"share-0.5", "share-0.2", "share-0.9"}

    def told(last):
        return asked.tell(sizes, {"share-0.5": Outcome(1.0), "share-0.2": Outcome(1.0), "share-0.9": Outcome(last)})

    assert told(2.0).share == 0.2
    assert told(0.5).share == 0.9
    assert asked.proportions(asked.init(sizes)).tolist() == [0.5, 0.5]
    assert plain.ask(sizes, Path()) == {} and plain.tell(sizes, {}).share == 0.3


@pytest.mark.parametrize("bad", [{"grid": (0.5,)}, {"grid": (0.0, 0.5)}, {"trial": 0}, {"share": "some"}, {"share": 0}])
def test_a_grid_that_says_nothing_is_refused(bad):
    with pytest.raises(ApportionError):
        Upsample(**bad)
