"""DoReMi's mixture: two trials, the second weighed against the first, and the mean of its weights."""

import json
from pathlib import Path

import pytest
import torch

from apportion._errors import ApportionError
from apportion.mixtures import Doremi, Outcome, TaskSizes
from tests.training.runs import run

ONES = torch.ones(3, dtype=torch.float64)
SIZES = TaskSizes(("a", "b", "c"), ONES, ONES, ONES)
FEW = ("tasks.names=[copy, reverse, sort]", "budget=1200")


def test_it_asks_for_a_reference_and_a_proxy_that_reads_it():
    asked = Doremi(trial=0.2, eta=2, smoothing=0.01, max_epochs=3).ask(SIZES, Path("/runs/x/trials"))
    assert list(asked) == ["reference", "proxy"] and {trial.budget for trial in asked.values()} == {0.2}
    assert all(trial.overrides["mixture"]["type"] == "uniform" for trial in asked.values())
    assert all(trial.overrides["mixture"]["max_epochs"] == 3 for trial in asked.values())
    assert asked["reference"].overrides["weights"] == {"type": "uniform"}
    weights = {"type": "doremi", "reference": "/runs/x/trials/reference", "eta": 2, "smoothing": 0.01}
    assert asked["proxy"].overrides["weights"] == weights
    assert Doremi().ask(TaskSizes(("a",), ONES[:1], ONES[:1], ONES[:1]), Path()) == {}


def test_both_have_the_smaller_model_where_one_is_named():
    config = {"model_type": "llama", "hidden_size": 8}
    asked = Doremi(proxy={"config": config, "tokenizer": {"train": "character"}}).ask(SIZES, Path())
    assert all(trial.overrides["model"]["config"] == config for trial in asked.values())


def test_the_mixture_is_the_mean_weight_over_its_sum():
    outcomes = {"reference": Outcome(1.0), "proxy": Outcome(1.0, {"a": 0.5, "b": 1.5, "c": 2.0})}
    method = Doremi(unit="tokens", max_epochs=2)
    found = method.tell(SIZES, outcomes)
    assert found.init(SIZES)["p"].tolist() == [0.125, 0.375, 0.5]
    assert (found.unit, found.max_epochs, found.plain) == ("tokens", 2, False)
    outcomes["proxy"] = Outcome(1.0, {"a": 0.5, "b": 1.5})  # c was never drawn
    assert method.tell(SIZES, outcomes).init(SIZES)["p"].tolist() == pytest.approx([0.2, 0.6, 0.2])


def test_a_run_draws_by_its_proxys_mean_weights(tmp_path):
    done = run(tmp_path / "run", *FEW, "mixture={type: doremi, trial: 0.5}").path
    trials = done / "trials"
    tasks = json.loads((trials / "proxy" / "mixture.json").read_text())["tasks"]
    weights = {name: task["weight"] for name, task in tasks.items()}
    drawn = {name: task["examples"] for name, task in tasks.items()}
    assert sum(weights[name] * drawn[name] for name in weights) / sum(drawn.values()) == pytest.approx(1, abs=0.02)
    assert max(weights.values()) > 1.02 > 0.98 > min(weights.values())
    final = json.loads((done / "mixture.json").read_text())["final"]
    assert final == pytest.approx({name: weight / sum(weights.values()) for name, weight in weights.items()})
    for folder in (done, trials / "reference"):  # where nothing is weighed, there is no such column
        assert "weight" not in next(iter(json.loads((folder / "mixture.json").read_text())["tasks"].values()))
    accounts = [json.loads((trials / name / "ledger.json").read_text())["accounts"] for name in ("reference", "proxy")]
    spent = sum(account["flops"] for of in accounts for account in of.values())
    assert json.loads((done / "ledger.json").read_text())["accounts"]["proxy"]["flops"] == pytest.approx(spent)
    assert accounts[1]["meta"]["flops"] == pytest.approx(accounts[1]["train"]["flops"] / 3, rel=0.05)


@pytest.mark.parametrize("bad", [{"trial": 0}, {"eta": 0}, {"smoothing": 2}, {"proxy": {"config": {}}}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ApportionError):
        Doremi(**bad)
