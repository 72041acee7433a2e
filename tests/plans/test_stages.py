"""Stages: planned as they are spent, paid from one budget, each resumed alone; here LoRA teachers before training."""

from __future__ import annotations

import json
import shutil

import pytest

from apportion._errors import ApportionError
from apportion.budget import ACCOUNTS
from apportion.plans import run as runs
from apportion.plans.plan import plan_recipe
from apportion.plans.run import prepare, run_recipe
from tests.training.hypernets import hyper, on, recipe
from tests.training.runs import history, ledger, weights
from tests.training.runs import run as ordinary

SETTINGS = ("budget=300", "kind.kl=0", "kind.ins=1.0")
GROUPED = "kind.teachers={budget: 150, groups: {copy: a, reverse: a, upper: b}}"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A recipe of a hypernetwork on a base that is trained a little."""
    base = hyper(tmp_path_factory.mktemp("base") / "run", "budget=300").path / "model"
    return on(base, base / "base")


def spent(done):
    return {name: account for name, account in ledger(done)["accounts"].items() if account["flops"]}


def total(done):
    return sum(account["flops"] for account in spent(done).values())


@pytest.fixture(scope="module")
def taught(tmp_path_factory, llama):
    """A run with two teachers under a budget in tokens."""
    return hyper(tmp_path_factory.mktemp("taught") / "run", *SETTINGS, GROUPED, start=llama)


def test_what_is_planned_is_spent_on_every_account(llama, taught):
    planned = plan_recipe(recipe(*SETTINGS, GROUPED, start=llama)).accounts
    found = spent(taught)
    assert set(found) == {name for name in ACCOUNTS if planned.get(name, {}).get("flops")}
    assert {"train", "validation", "proxy", "generate"} == set(found)
    for name, account in found.items():
        for column in ("supervised", "processed", "flops"):
            assert planned[name][column] == pytest.approx(account[column], rel=0.1), (name, column)


def test_a_runs_time_is_its_childrens_too(taught):
    theirs = [json.loads(file.read_text())["seconds"] for file in taught.path.glob("teachers/*/summary.json")]
    assert len(theirs) == 2 and taught.summary["seconds"] > sum(theirs) > 0


def test_a_cap_on_epochs_is_of_what_is_left_for_training(llama, taught):
    """Where children take part of a budget in FLOPs, a cap that all of it would pass may well be kept."""
    proxy, train = (spent(taught)[name]["flops"] for name in ("proxy", "train"))
    asked = (*SETTINGS, GROUPED, f"budget={proxy + 2 * train:.6g} FLOPs")
    epochs = plan_recipe(recipe(*asked, start=llama)).epochs
    cap = max(epochs.values()) / 2  # the largest tasks are seen a fourth as often as the smallest
    plan_recipe(recipe(*asked, f"mixture={{type: uniform, max_epochs: {cap:.5f}}}", start=llama))
    with pytest.raises(ApportionError, match=r"is more than 'mixture\.max_epochs'"):
        plan_recipe(recipe(*asked, f"mixture={{type: uniform, max_epochs: {cap / 4:.5f}}}", start=llama))


def test_a_plan_writes_nothing(tmp_path, monkeypatch, llama):
    monkeypatch.chdir(tmp_path)
    plan_recipe(recipe(*SETTINGS, GROUPED, start=llama))
    assert not list(tmp_path.iterdir())


class TestBudgetsInFlops:
    def test_teachers_are_paid_first_and_training_gets_the_rest(self, tmp_path, llama, taught):
        limit = 1.3 * total(taught)
        linear = "training.lr_scheduler_type=linear"
        asked = recipe(*SETTINGS, GROUPED, f"budget={limit:.6g} FLOPs", linear, start=llama)
        planned = plan_recipe(asked).accounts
        done = run_recipe(asked, tmp_path / "run")
        assert 0.9 * limit < total(done) <= limit
        for name, account in spent(done).items():
            assert planned[name]["flops"] == pytest.approx(account["flops"], rel=0.1), name
        # Each teacher has what its budget in tokens is expected to take, and cannot take more.
        for folder in (tmp_path / "run" / "teachers").iterdir():
            its = json.loads((folder / "ledger.json").read_text())
            assert its["budget"]["unit"] == "flops"
            assert sum(account["flops"] for account in its["accounts"].values()) <= its["budget"]["limit"]
        # Training's schedule and cadence are of what is left: it starts at the full rate, and is validated in its middle.
        records = history(done)
        rates = [record["lr"] for record in records if record["step"] > 0]
        assert rates[0] > 0.9 * 2e-3 and rates[-1] < 0.1 * 2e-3
        assert sum("macro" in record for record in records) == 3
        # It costs what it costs where tokens are the budget, and what is left over goes to training.
        assert spent(done)["proxy"]["flops"] == pytest.approx(spent(taught)["proxy"]["flops"], rel=0.1)
        assert spent(done)["train"]["flops"] > 1.2 * spent(taught)["train"]["flops"]

    def test_teachers_that_would_leave_too_little_are_refused_before_anything_is_spent(self, tmp_path, llama, taught):
        limit = 1.05 * spent(taught)["proxy"]["flops"]
        asked = recipe(*SETTINGS, GROUPED, f"budget={limit:.6g} FLOPs", start=llama)
        for attempt in (lambda: plan_recipe(asked), lambda: run_recipe(asked, tmp_path / "run")):
            with pytest.raises(ApportionError, match=r"may not reach for one example.* are spent before training"):
                attempt()
        assert not (tmp_path / "run").exists()

    def test_what_they_really_cost_is_looked_at_before_training(self, tmp_path, llama, taught):
        """A teacher that spent more than was expected of it, here one that is made dearer after all was checked."""
        settings = (
            *SETTINGS,
            f"kind.teachers={{run: {tmp_path / 'first'}, groups: {{copy: a, reverse: a, upper: b}}}}",
        )
        shutil.copytree(taught.path, tmp_path / "first")
        limit = 2 * total(taught)
        staged = prepare(recipe(*settings, f"budget={limit:.6g} FLOPs", start=llama), tmp_path / "run")
        staged.load()
        file = tmp_path / "first" / "teachers" / "1-b" / "ledger.json"
        its = json.loads(file.read_text())
        its["accounts"]["train"]["flops"] = 0.9 * limit
        file.write_text(json.dumps(its))
        with pytest.raises(ApportionError, match=r"may not reach for one example.* are spent before training"):
            staged.run(None, None)


class TestResumed:
    def stopped(self, monkeypatch, out, asked, at):
        """Stop a run at the start of its stage number ``at``, counted over all of its child runs."""
        real, seen = runs.run_recipe, []

        def counted(child, folder, show=None):
            seen.append(folder)
            if len(seen) == at:
                raise KeyboardInterrupt
            return real(child, folder, show)

        with monkeypatch.context() as patched:
            patched.setattr(runs, "run_recipe", counted)
            with pytest.raises(KeyboardInterrupt):
                real(asked, out)
        assert not (out / "summary.json").exists()

    @pytest.mark.parametrize("budget", ["300", "flops"])
    def test_a_finished_child_is_not_run_again_and_the_next_goes_on(self, tmp_path, monkeypatch, llama, taught, budget):
        said = "budget=300" if budget == "300" else f"budget={1.3 * total(taught):.6g} FLOPs"
        asked = recipe(*SETTINGS, GROUPED, said, "training.lr_scheduler_type=cosine", start=llama)
        whole = run_recipe(asked, tmp_path / "whole")
        self.stopped(monkeypatch, tmp_path / "broken", asked, 2)
        first = tmp_path / "broken" / "teachers" / "0-a"
        before = (first / "summary.json").stat().st_mtime_ns
        assert not (tmp_path / "broken" / "teachers" / "1-b").exists()
        broken = run_recipe(asked, tmp_path / "broken")
        assert (first / "summary.json").stat().st_mtime_ns == before
        assert weights(broken) == weights(whole)
        assert (broken.path / "ledger.json").read_bytes() == (whole.path / "ledger.json").read_bytes()

    def test_a_child_that_was_stopped_goes_on_by_itself(self, tmp_path, llama):
        asked = recipe(*SETTINGS, GROUPED, start=llama)
        whole = run_recipe(asked, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "broken")
        (tmp_path / "broken" / "summary.json").unlink()
        shutil.rmtree(tmp_path / "broken" / "checkpoints")
        (tmp_path / "broken" / "teachers" / "1-b" / "summary.json").unlink()
        broken = run_recipe(asked, tmp_path / "broken")
        assert weights(broken) == weights(whole)
        assert ledger(broken) == ledger(whole)

    def test_a_finished_child_of_another_recipe_is_not_taken(self, tmp_path, llama, taught):
        asked = recipe(*SETTINGS, "kind.teachers={budget: 60, groups: {copy: a, reverse: a, upper: b}}", start=llama)
        runs.RunFolder.create(tmp_path / "run", asked.resolved()).close()
        shutil.copytree(taught.path / "teachers", tmp_path / "run" / "teachers")
        with pytest.raises(ApportionError, match="holds a finished run"):
            run_recipe(asked, tmp_path / "run")


def test_a_run_without_children_is_one_stage(tmp_path):
    staged = prepare(recipe("budget=50"), tmp_path / "run")
    assert staged.stages == (staged.training,) and not staged.training.finished
    done = ordinary(tmp_path / "plain", "budget=100")
    assert "proxy" not in spent(done)
