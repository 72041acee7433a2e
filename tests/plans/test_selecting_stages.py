"""Selection as a stage: priced, paid from the budget, killed and resumed, shared out among ranks, and shared with trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from apportion._errors import ApportionError
from apportion.plans import selecting
from apportion.plans.build import load_data
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden
from apportion.plans.run import Staged, run_recipe
from apportion.plans.training import Training
from apportion.signals.pool_gradients import GradientProducts, ProjectedGradients
from apportion.signals.pool_states import PoolStates
from tests.plans.selecting import BASE, LESS, PRODUCTS, accounts, kept, recipe, run, summary, total
from tests.training.runs import history
from tests.training.test_ranks import launched

FILES = (
    "selection.parquet",
    "ledger.json",
    "mixture.json",
    "validation.json",
    "recipe.yaml",
    "model/model.safetensors",
)
EMBEDDING = "selection={type: embedding, limit: 30%}"
SIGNALS = {EMBEDDING: PoolStates, LESS: ProjectedGradients, PRODUCTS: GradientProducts}


def timeless(folder):
    return [{**record, "seconds": None} for record in history(folder)]


def same(mine, theirs):
    for name in FILES:
        assert (mine.path / name).read_bytes() == (theirs.path / name).read_bytes(), name
    assert timeless(mine) == timeless(theirs)
    ended = [{**folder.summary, "seconds": None} for folder in (mine, theirs)]
    assert ended[0] == ended[1]


class TestStopped:
    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory):
        """Runs that were never stopped, by their selection."""
        made = {}

        def of(selection):
            if selection not in made:
                made[selection] = run(tmp_path_factory.mktemp("whole") / "run", selection)
            return made[selection]

        return of

    @pytest.mark.parametrize(("selection", "at"), [(EMBEDDING, 4), (LESS, 4), (PRODUCTS, 1)])
    def test_it_goes_on_and_scores_nothing_twice(self, tmp_path, monkeypatch, whole, selection, at):
        """Stopped in the middle of a chunk, and again in the fifth: each chunk and each target is measured once."""
        cls, shown, begun = SIGNALS[selection], [], []
        show, begin = cls.show, cls.begin
        stops = {at, 5}

        def counted(signal, chunk):
            found = show(signal, chunk)
            shown.append([(task, i) for task, _, i in chunk])
            if len(shown) in stops:
                stops.discard(len(shown))
                shown.pop()
                raise KeyboardInterrupt
            return found

        def opened(signal, look):
            begun.append(look.weight)
            return begin(signal, look)

        monkeypatch.setattr(cls, "show", counted)
        monkeypatch.setattr(cls, "begin", opened)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "broken", selection)
            assert list((tmp_path / "broken" / "selecting").iterdir())
            assert not (tmp_path / "broken" / "selection.parquet").exists()
        broken = run(tmp_path / "broken", selection)
        looks = 1 if selection == EMBEDDING else 2
        assert len(begun) == looks
        assert len(shown) == 5 * looks and all(shown.count(chunk) == looks for chunk in shown)
        monkeypatch.undo()
        same(broken, whole(selection))

    def test_killed_in_the_middle_of_scoring(self, tmp_path):
        """Chunks of a few examples, so that there is a middle, in a process that knows nothing of it."""
        asked = [EMBEDDING, "budget=300"]
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(overridden(BASE, asked), sort_keys=False))
        out = tmp_path / "broken"
        code = "import apportion.signals._pool as p; p.CHUNK = 8; from apportion.cli.main import main; main()"
        command = [sys.executable, "-c", code, "train", str(file), "--out", str(out), "--json"]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
        while len(list((out / "selecting").glob("look-0-*.safetensors"))) < 5:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        parts = {part.name: part.stat().st_mtime_ns for part in (out / "selecting").glob("look-*.safetensors")}
        assert not (out / "selection.parquet").exists()
        seen = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("apportion.signals._pool.CHUNK", 8)
            whole = run(tmp_path / "whole", *asked)
            write = selecting.write_selection

            def last_look(path, *rest):
                seen.update({part.name: part.stat().st_mtime_ns for part in (out / "selecting").iterdir()})
                write(path, *rest)

            patch.setattr(selecting, "write_selection", last_look)
            broken = run(out, *asked)
        assert 5 <= len(parts) < len(seen)
        assert {name: seen[name] for name in parts} == parts
        same(broken, whole)

    def test_a_finished_selection_is_not_made_again(self, tmp_path, monkeypatch, whole):
        """Stopped while it trains."""

        def stop(*_, **__):
            raise KeyboardInterrupt

        trained = Training.run

        def not_after(training, *rest):
            return stop() if training.recipe.selection["type"] == "less" else trained(training, *rest)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Training, "run", not_after)
            run(tmp_path / "broken", LESS)
        file = tmp_path / "broken" / "selection.parquet"
        before = file.stat().st_mtime_ns
        monkeypatch.setattr(ProjectedGradients, "show", stop)
        broken = run(tmp_path / "broken", LESS)
        assert file.stat().st_mtime_ns == before
        monkeypatch.undo()
        same(broken, whole(LESS))


BOTH = """
import sys
from pathlib import Path
from tests.plans import test_selecting_stages as here
out = Path(sys.argv[sys.argv.index("--out") + 1])
for name, selection in (("embedding", here.EMBEDDING), ("less", here.LESS)):
    here.run(out / name, selection, *here.SIZED)
"""
SIZED = ("training.per_device_train_batch_size=4", "budget=300")


def test_two_ranks_score_as_one_does(tmp_path):
    """The file is the same to the byte where the model is the same; a warm-up by two is it to rounding."""
    done = launched(tmp_path, tmp_path / "both", main=BOTH, base=BASE)
    assert done.returncode == 0, done.stderr
    for name, selection in (("embedding", EMBEDDING), ("less", LESS)):
        both = tmp_path / "both" / name
        alone = run(tmp_path / name, selection, *SIZED, "training.gradient_accumulation_steps=2").path
        files = [(folder / "selection.parquet").read_bytes() for folder in (both, alone)]
        assert name == "less" or files[0] == files[1]
        assert len(kept(both) ^ kept(alone)) <= (0 if name == "embedding" else 0.05 * len(kept(alone)))
        for account, spent in accounts(alone).items():
            assert accounts(both)[account]["flops"] == pytest.approx(spent["flops"], rel=1e-6), (name, account)
        assert not (both / "selecting").exists()


class TestBudgetsInFlops:
    @pytest.mark.parametrize("selection", [EMBEDDING, LESS])
    def test_all_that_it_costs_comes_out_of_the_budget(self, tmp_path, selection):
        free = run(tmp_path / "free", selection, "budget=200").path
        before = sum(accounts(free)[name]["flops"] for name in ("select", "proxy"))
        limit = 2 * total(free)
        folder = run(tmp_path / "run", selection, f"budget={limit:.6g} FLOPs").path
        assert 0.9 * limit < total(folder) <= limit
        after = sum(accounts(folder)[name]["flops"] for name in ("select", "proxy"))
        assert after == pytest.approx(before, rel=0.1)
        planned = plan_recipe(recipe(selection, f"budget={limit:.6g} FLOPs")).accounts
        for name, account in accounts(folder).items():
            if account["flops"]:
                assert planned[name]["flops"] == pytest.approx(account["flops"], rel=0.1), name

    @pytest.mark.parametrize("selection", [EMBEDDING, LESS, PRODUCTS])
    def test_one_that_is_dearer_than_the_budget_is_refused_before_anything_is_written(self, tmp_path, selection):
        planned = plan_recipe(recipe(selection)).accounts
        asked = recipe(selection, f"budget={0.9 * planned['select']['flops']:.6g} FLOPs")
        for attempt in (plan_recipe, lambda given: run_recipe(given, tmp_path / "run")):
            with pytest.raises(
                ApportionError, match=r"The selection '\w+' is expected to take .*lower 'selection.pool'"
            ):
                attempt(asked)
        assert not (tmp_path / "run").exists()

    def test_one_that_leaves_too_little_to_train_on_is_refused_too(self, tmp_path):
        planned = plan_recipe(recipe(EMBEDDING)).accounts
        asked = recipe(EMBEDDING, f"budget={1.001 * planned['select']['flops']:.6g} FLOPs")
        with pytest.raises(ApportionError, match="before training"):
            run_recipe(asked, tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestTrials:
    GRID = ("targets={tasks: [copy, sort]}", "mixture={type: upsample, share: grid, grid: [0.3, 0.6], trial: 0.2}")

    def test_they_train_on_what_the_run_keeps_and_pay_for_it_once(self, tmp_path):
        folder = run(tmp_path / "run", EMBEDDING, *self.GRID).path
        left, spent = summary(folder)["selection"], accounts(folder)
        trials = list((folder / "trials").iterdir())
        assert len(trials) == 2
        for trial in trials:
            assert summary(trial)["selection"]["kept"] == left["kept"]
            assert summary(trial)["selection"]["tasks"] == left["tasks"]
            assert accounts(trial)["select"]["flops"] == 0
            assert not (trial / "selection.parquet").exists()
            sizes = json.loads((trial / "mixture.json").read_text())["tasks"]
            assert sum(of["size"] for of in sizes.values()) == left["kept"]["supervised"]
        assert spent["select"]["flops"] > 0
        assert spent["proxy"]["flops"] == pytest.approx(sum(map(total, trials)))
        # The budget's percent stays that of the pool in a trial, which sees but a part of it.
        limits = [json.loads((trial / "ledger.json").read_text())["budget"]["limit"] for trial in trials]
        whole = json.loads((folder / "ledger.json").read_text())["budget"]["limit"]
        assert all(limit == int(0.2 * whole) for limit in limits)

    def test_a_budget_in_flops_pays_for_selection_and_trials(self, tmp_path):
        limit = 3 * total(run(tmp_path / "free", EMBEDDING, "budget=300").path)
        folder = run(tmp_path / "run", EMBEDDING, *self.GRID, f"budget={limit:.6g} FLOPs").path
        assert 0.85 * limit < total(folder) <= limit
        assert accounts(folder)["proxy"]["flops"] <= 0.4 * limit


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            ("selection={type: random, limit: 3}",),
            "'selection.limit' keeps 3 supervised tokens, and the longest example",
        ),
        (("selection={type: random, limit: 5 processed}",), "keeps 5 processed tokens, and the longest example has"),
        (("selection={type: random, limit: {examples: 0.1%}}",), "'selection.limit.examples' is '0.1%'"),
        ((LESS, "training.optim=adafactor"), "'training.optim'"),
        (("selection={type: less, epochs: 30, warmup: 0.01}",), "The warm-up is expected to have"),
    ],
)
def test_what_cannot_be_selected_is_refused_and_nothing_is_written(tmp_path, assignments, said):
    for attempt in (plan_recipe, lambda given: run_recipe(given, tmp_path / "run")):
        with pytest.raises(ApportionError) as raised:
            attempt(recipe(*assignments))
        assert said in str(raised.value)
        assert "ADAPT mixtures" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_parts_that_were_scored_of_other_data_are_refused(tmp_path):
    out = tmp_path / "run"
    (out / "selecting").mkdir(parents=True)
    (out / "selecting" / "origin").write_text("of other data")
    stage = Staged(recipe(EMBEDDING), load_data(recipe(EMBEDDING)), out)
    stage.load()
    with pytest.raises(ApportionError, match="changed since this selection began: put them back"):
        stage.run(None, None)
    assert [file.name for file in (out / "selecting").iterdir()] == ["origin"]
