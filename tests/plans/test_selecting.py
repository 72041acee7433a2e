"""A run that trains on what a selection keeps: which examples, what is reported on, what it costs and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apportion._errors import ApportionError
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import prepare, run_recipe
from apportion.plans.select import select_recipe
from apportion.runs.selection import read_selection
from apportion.tasks.encoded import EncodedSplit
from tests.plans.selecting import BASE, LESS, NAMES, accounts, kept, recipe, rows, run, summary
from tests.training.runs import history

FEW = "selection={type: random, limit: {examples: 12}}"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def bm25(tmp_path_factory):
    """A file that `apportion select` wrote."""
    return select_recipe(recipe("selection={type: bm25, limit: 30%}"), tmp_path_factory.mktemp("bm25") / "kept.parquet")


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    """And one that cost something."""
    asked = recipe("selection={type: embedding, limit: 30%}")
    return select_recipe(asked, tmp_path_factory.mktemp("embedding") / "kept.parquet")


@pytest.fixture(scope="module")
def less(tmp_path_factory):
    return run(tmp_path_factory.mktemp("less") / "run", LESS)


class TestWhatIsTrainedOn:
    def test_kept_examples_are_drawn_and_no_other(self, tmp_path, monkeypatch):
        staged = prepare(recipe(FEW, "budget=100%"), tmp_path / "run")
        staged.load()
        taken = set()
        real = EncodedSplit.example

        def spied(split, i):
            taken.add((id(split), split.ids[i]))
            return real(split, i)

        monkeypatch.setattr(EncodedSplit, "example", spied)
        staged.run(None, None)
        trained = {id(task.train): task.name for task in staged.training.data.tasks.tasks}
        drawn = {(trained[split], example) for split, example in taken if split in trained}
        assert len(drawn) == 12 and drawn == kept(tmp_path / "run")
        held = {name for split, name in taken if split not in trained}
        assert not held & {example for _, example in drawn}

    def test_the_mixture_is_of_what_is_kept_and_the_budget_of_the_pool(self, tmp_path, plain):
        folder = run(tmp_path / "run", FEW).path
        mixture = json.loads((folder / "mixture.json").read_text())
        left = kept(folder)
        assert set(mixture["tasks"]) == {task for task, _ in left}
        sizes = {name: of["size"] for name, of in mixture["tasks"].items()}
        assert sum(sizes.values()) == summary(folder)["selection"]["kept"]["supervised"]
        for name, share in mixture["final"].items():  # what is selected is trained on as it is
            assert share == pytest.approx(sum(task == name for task, _ in left) / 12)
        budgets = [json.loads((at / "ledger.json").read_text())["budget"] for at in (folder, plain.path)]
        assert budgets[0] == budgets[1] and budgets[0]["limit"] > sum(sizes.values())

    def test_tasks_that_keep_nothing_are_reported_on(self, tmp_path, plain):
        done = run(tmp_path / "run", "selection={type: random, limit: {examples: 2}}")
        assert len({task for task, _ in kept(done.path)}) < len(NAMES)
        mine, theirs = history(done), history(plain)
        # The model that nothing is trained into yet is the same, and so is what is said of it.
        for key in ("macro", "worst", "objective"):
            assert mine[0][key] == pytest.approx(theirs[0][key], rel=1e-6)
        for record in (record for record in mine if "macro" in record):
            assert list(record["validation"]) == list(NAMES)
            assert record["macro"] == pytest.approx(np.mean(list(record["validation"].values())))
        assert mine[0]["validation"] == pytest.approx(theirs[0]["validation"], rel=1e-6)
        validation = [json.loads((at / "validation.json").read_text())["tasks"] for at in (done.path, plain.path)]
        assert {name: of["ids"] for name, of in validation[0].items()} == {
            name: of["ids"] for name, of in validation[1].items()
        }

    def test_targets_are_reported_on_though_nothing_of_them_is_kept(self, tmp_path):
        asked = ("targets={tasks: {copy: 2, sort: 1}}", "selection={type: random, limit: {examples: 2}}", "seed=1")
        done = run(tmp_path / "run", *asked)
        assert {"copy", "sort"} - {task for task, _ in kept(done.path)}
        final = summary(done.path)["final"]
        assert final["target"] == pytest.approx((2 * final["targets"]["copy"] + final["targets"]["sort"]) / 3)
        assert final["targets"]["copy"] == pytest.approx(final["validation"]["copy"])
        assert final["others"] == pytest.approx(np.mean([final["validation"][n] for n in ("reverse", "upper", "next")]))

    def test_everything_kept_is_the_run_without(self, tmp_path):
        whole = run(tmp_path / "all", "mixture=proportional")
        kept_all = run(tmp_path / "random", "mixture=proportional", "selection={type: random, limit: 100%}")
        for name in ("history.jsonl", "ledger.json", "mixture.json", "model/model.safetensors"):
            mine, theirs = ((folder.path / name).read_bytes() for folder in (kept_all, whole))
            if name == "history.jsonl":
                mine, theirs = ([{**r, "seconds": 0} for r in history(folder)] for folder in (kept_all, whole))
            assert mine == theirs, name


class TestTheFile:
    def test_its_columns(self, less):
        found = rows(less.path)
        table = pq.read_table(less.path / "selection.parquet")
        assert table.column_names == ["id", "task", "score", "rank", "kept", "reason"]
        by_rank = sorted(found, key=lambda row: row["rank"])
        assert [row["rank"] for row in by_rank] == list(range(1, len(found) + 1))
        assert all(a["score"] >= b["score"] for a, b in pairwise(by_rank))
        count = sum(row["kept"] for row in found)
        assert 0 < count < len(found)
        assert [row["kept"] for row in by_rank] == [True] * count + [False] * (len(found) - count)
        assert {(row["kept"], row["reason"]) for row in found} == {
            (True, "within the limit"),
            (False, "beyond the limit"),
        }
        assert {row["task"] for row in found} == set(NAMES)

    def test_what_it_was_made_by(self, less):
        about = read_selection(less.path / "selection.parquet").about
        assert about["selection"]["type"] == "less" and about["selection"]["warmup"] == 0.2 and about["seed"] == 0
        assert about["targets"] == dict.fromkeys(NAMES, 1.0)
        spent = accounts(less.path)
        # Scoring and a warm-up write no answers, so that the ledger has kinds of tokens that the file has not.
        for told, account in ((about["spent"], "select"), (about["before"], "proxy")):
            assert {**dict.fromkeys(spent[account], 0), **told[account]} == spent[account]
        assert not (less.path / "selecting").exists()

    def test_the_limit_is_kept_to_the_token(self, less):
        said = summary(less.path)["selection"]
        limit = int(0.3 * said["pool"]["supervised"])
        longest = 40
        assert limit - longest < said["kept"]["supervised"] <= limit
        assert said["pool"]["examples"] == len(rows(less.path)) == sum(said["reasons"].values())
        assert sum(of["kept"] for of in said["tasks"].values()) == said["kept"]["examples"] == len(kept(less.path))
        assert said["type"] == "less"

    def test_of_equals_the_one_with_the_smaller_id_is_kept(self, tmp_path):
        own = "tests.selections.pools:Alike"
        done = run(tmp_path / "run", f"selection={{type: '{own}', limit: {{examples: 7}}}}")
        ids = sorted(row["id"] for row in rows(done.path))
        assert sorted(id for _, id in kept(done.path)) == ids[:7]

    def test_what_is_not_drawn_into_the_pool_is_not_scored(self, tmp_path):
        file = tmp_path / "kept.parquet"
        done = select_recipe(recipe("selection={type: perplexity, pool: 0.25, limit: 12%}"), file)
        found = rows(tmp_path, "kept.parquet")
        scored = [row for row in found if row["score"] is not None]
        assert len(scored) == round(0.25 * len(found))
        assert {row["kept"] for row in scored} == {True, False}
        rest = [row for row in found if row["score"] is None]
        assert {(row["rank"], row["kept"], row["reason"]) for row in rest} == {(None, False, "not scored")}
        whole = select_recipe(recipe("selection={type: perplexity, limit: 90%}"), tmp_path / "all.parquet")
        assert done.spent["select"]["flops"] < 0.4 * whole.spent["select"]["flops"]
        other = select_recipe(
            recipe("selection={type: perplexity, pool: 0.25, limit: 12%}", "seed=1"),
            tmp_path / "b.parquet",
        )
        assert kept(tmp_path, other.path.name) != kept(tmp_path, file.name)


class TestAGivenFile:
    def take(self, path, **settings):
        return {"type": "file", "path": str(path), **settings}

    def with_file(self, path, *assignments, **settings):
        return parse_recipe({**overridden(BASE, assignments), "selection": self.take(path, **settings)})

    def test_it_keeps_the_same_and_is_charged_unless_told_not_to(self, tmp_path, embedding):
        charged = run_recipe(self.with_file(embedding.path), tmp_path / "charged").path
        free = run_recipe(self.with_file(embedding.path, charge=False), tmp_path / "free").path
        made = run(tmp_path / "made", "selection={type: embedding, limit: 30%}").path
        assert accounts(charged) == accounts(made)
        assert accounts(made)["select"]["flops"] > 0 == accounts(free)["select"]["flops"]
        for folder in (charged, free):
            assert (folder / "model/model.safetensors").read_bytes() == (made / "model/model.safetensors").read_bytes()
            assert summary(folder)["selection"]["kept"] == summary(made)["selection"]["kept"]
            assert not (folder / "selection.parquet").exists()

    def test_a_warm_up_is_charged_with_it(self, tmp_path, less):
        again = run_recipe(self.with_file(less.path / "selection.parquet"), tmp_path / "run").path
        assert accounts(again) == accounts(less.path)
        assert accounts(again)["proxy"]["flops"] > 0 and not (again / "warm-up").exists()
        plan = plan_recipe(self.with_file(less.path / "selection.parquet"))
        assert plan.accounts["proxy"]["flops"] == pytest.approx(accounts(less.path)["proxy"]["flops"])

    def test_other_tools_may_write_it(self, tmp_path, plain):
        ids = {name: recipe_ids(name)[:3] for name in ("copy", "sort")}
        table = {
            "task": [name for name in ids for _ in range(3)],
            "id": [one for each in ids.values() for one in each],
            "kept": [True, False, True, True, True, False],
        }
        pq.write_table(pa.table(table), tmp_path / "own.parquet")
        done = run_recipe(self.with_file(tmp_path / "own.parquet"), tmp_path / "run").path
        said = summary(done)["selection"]
        assert said["kept"]["examples"] == 4 and said["tasks"]["sort"]["kept"] == 2
        assert accounts(done)["select"]["flops"] == 0
        assert "missing" not in said

    def test_what_it_keeps_and_is_not_here_is_counted(self, tmp_path):
        here = recipe_ids("copy")[:2]
        table = {"task": ["copy"] * 4, "id": [*here, "gone", "lost"], "kept": [True] * 4}
        pq.write_table(pa.table(table), tmp_path / "own.parquet")
        done = run_recipe(self.with_file(tmp_path / "own.parquet"), tmp_path / "run").summary
        assert done["selection"]["missing"] == 2
        assert "2 of the examples that the selection's file keeps are not in these tasks." in done["findings"]

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ({"id": ["x"], "kept": [True]}, "has no column 'task'"),
            ({"task": ["copy"], "kept": [True]}, "has no column 'id'"),
            ({"task": ["copy"], "id": ["x"]}, "has no column 'kept'"),
            ({"task": ["copy"], "id": ["x"], "kept": [1]}, "its column 'kept' is int64, not true or false"),
            (
                {"task": ["copi"], "id": ["x"], "kept": [True]},
                "a task 'copi', which is none here (did you mean 'copy'?)",
            ),
            ({"task": ["copy"], "id": ["nowhere"], "kept": [True]}, "keeps no example of these tasks"),
            ({"task": ["copy"], "id": ["x"], "kept": [False]}, "keeps no example of these tasks"),
        ],
    )
    def test_what_is_no_selection_of_these_tasks(self, tmp_path, table, said):
        pq.write_table(pa.table(table), tmp_path / "own.parquet")
        for attempt in (plan_recipe, lambda asked: run_recipe(asked, tmp_path / "run")):
            with pytest.raises(ApportionError) as raised:
                attempt(self.with_file(tmp_path / "own.parquet"))
            assert said in str(raised.value)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("make", ["missing", "text", "folder"])
    def test_what_is_no_parquet(self, tmp_path, make):
        file = tmp_path / "kept.parquet"
        if make == "text":
            file.write_text("id,task,kept\n")
        elif make == "folder":
            file.mkdir()
        said = {
            "missing": "There is no selection",
            "text": "cannot be read as Parquet",
            "folder": "There is no selection",
        }
        for attempt in (plan_recipe, lambda asked: run_recipe(asked, tmp_path / "run")):
            with pytest.raises(ApportionError, match=said[make]):
                attempt(self.with_file(file))
        assert not (tmp_path / "run").exists()


def recipe_ids(name):
    from apportion.plans.build import load_data

    return load_data(recipe()).tasks[name].train.ids
