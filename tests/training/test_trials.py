"""A mixture that asks for trials: they are runs of their own, charged to the run, and it is told how they ended."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from apportion._errors import ApportionError
from apportion.mixtures import Fixed, Mixture, Outcome, TaskSizes, Trial, Upsample
from apportion.plans.recipe import parse_recipe
from apportion.plans.run import run_recipe
from apportion.plans.training import _tried
from apportion.training.stream import Stream
from tests.training.runs import TINY, run

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


class Tries(Mixture):
    """Asks for a larger model on one task and for weights on all, and draws what it is told of the latter."""

    config: dict[str, Any]

    def ask(self, tasks, folder):
        first = {name: float(name == tasks.names[0]) for name in tasks.names}
        return {
            "larger": Trial({"mixture": {"type": "fixed", "shares": first}, "model": self.config}, 0.2),
            "weighed": Trial({"mixture": {"type": "uniform"}, "weights": {"type": "linupper"}}, 0.4),
        }

    def tell(self, tasks, outcomes):
        weights = outcomes["weighed"].weights
        assert not outcomes["larger"].weights and outcomes["larger"].loss > 0
        return Fixed(shares={name: weight / sum(weights.values()) for name, weight in weights.items()})

    def init(self, tasks):
        return {"p": torch.full((len(tasks.names),), 1 / len(tasks.names), dtype=torch.float64)}


def test_a_trial_may_replace_any_block_and_tells_what_each_task_weighed(tmp_path):
    config = {**TINY["model"]["config"], "hidden_size": 64}
    block = {"type": "tests.training.test_trials:Tries", "config": {**TINY["model"], "config": config}}
    values = {**TINY, "tasks": {**TINY["tasks"], "names": ["copy", "echo", "sort"]}, "mixture": block}
    done = run_recipe(parse_recipe(values), tmp_path / "run").path
    trials = {folder.name: json.loads((folder / "mixture.json").read_text()) for folder in (done / "trials").iterdir()}
    sizes = [summary(folder)["parameters"]["total"] for folder in (done / "trials" / "larger", done)]
    assert sizes[0] > 2 * sizes[1]
    assert trials["larger"]["tasks"]["echo"]["examples"] == 0 and "weight" not in trials["larger"]["tasks"]["copy"]
    weights = {name: task["weight"] for name, task in trials["weighed"]["tasks"].items()}
    final = json.loads((done / "mixture.json").read_text())["final"]
    assert final == pytest.approx({name: weight / sum(weights.values()) for name, weight in weights.items()})
    assert max(final.values()) > 1.02 * min(final.values())


def test_of_many_trials_a_finding_says_the_range():
    few = {"a": Outcome(1.0), "b": Outcome(2.0)}
    assert _tried(few) == "ended at a loss of: a 1.000, b 2.000"
    many = {f"trial-{n}": Outcome(float((n * 7) % 30)) for n in range(30)}
    assert _tried(many) == "ended at losses from 0.000 (trial-0) to 29.000 (trial-17), 30 of them"


@pytest.mark.parametrize("bad", [{"grid": (0.5,)}, {"grid": (0.0, 0.5)}, {"trial": 0}, {"share": "some"}, {"share": 0}])
def test_a_grid_that_says_nothing_is_refused(bad):
    with pytest.raises(ApportionError):
        Upsample(**bad)


# How many steps are drawn, over trials and run, until each of two stops: the first within a trial, where there are any.
STOPS = {
    "bandit": (12, 20),
    "{type: doremi, trial: 0.3}": (15, 40),
    "{type: regmix, trials: 8, trial: 0.1, fit: linear}": (14, 46),
}


@pytest.mark.parametrize("mixture", STOPS)
def test_stopped_in_a_trial_and_after_it_equals_never_stopped(tmp_path, monkeypatch, mixture):
    settings = ("tasks.names=[copy, echo, sort]", "validation.every=0.1", "budget=2000", f"mixture={mixture}")
    # The proxy's recipe names the reference by its absolute folder: both runs are made in one place.
    out, whole = tmp_path / "run", tmp_path / "whole"
    run(out, *settings)
    out.rename(whole)
    drawn = Stream.next_step
    for stop in STOPS[mixture]:
        left = iter(range(stop))

        def next_step(self, p, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return drawn(self, p)

        monkeypatch.setattr(Stream, "next_step", next_step)
        with pytest.raises(KeyboardInterrupt):
            run(out, *settings)
        finished = [folder.name for folder in out.glob("trials/*") if (folder / "summary.json").exists()]
        assert stop == STOPS[mixture][1] or len(finished) < len(list(whole.glob("trials/*"))) or mixture == "bandit"
    monkeypatch.setattr(Stream, "next_step", drawn)
    assert len(finished) == len(list(whole.glob("trials/*"))) and list(out.glob("checkpoints/step-*"))
    run(out, *settings)
    for name in ("ledger.json", "mixture.json", "validation.json", "model/model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert {**summary(out), "seconds": 0} == {**summary(whole), "seconds": 0}
    shares = list(json.loads((out / "mixture.json").read_text())["final"].values())
    assert max(shares) > 1.01 * min(shares)
