"""What every selection in the registry must do, on a small playground; a new one joins by being registered."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from apportion import selections
from apportion._errors import ApportionError
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import parse_recipe
from apportion.plans.run import run_recipe
from apportion.plans.select import select_recipe
from apportion.selections import SELECTIONS
from apportion.signals._pool import PoolSignal
from tests.plans.selecting import BASE, NAMES, accounts, kept, rows, summary

# Small enough for the pool: a warm-up of as many steps as it has checkpoints.
SETTINGS = {"less": {"projection": 64, "warmup": 0.2}}
every = pytest.mark.parametrize("name", list(SELECTIONS))
# These draw by the order of tasks, LESS in its warm-up.
drawing = ("random", "less")
measuring = pytest.mark.parametrize("name", [name for name in SELECTIONS if name not in ("all", "random", "file")])


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    """Returns a method's block: it keeps a third, and a file what BM25 keeps of it."""
    file = tmp_path_factory.mktemp("given") / "kept.parquet"

    def of(name):
        if name == "all":
            return {"type": name}
        if name == "file":
            if not file.exists():
                select_recipe(recipe({"type": "bm25", "limit": "33%"}), file)
            return {"type": name, "path": str(file)}
        return {"type": name, "limit": "33%", **SETTINGS.get(name, {})}

    return of


def recipe(selection, **changes):
    return parse_recipe(
        {**BASE, "selection": selection, "validation": {"every": 1.0, "examples_per_task": 2}, **changes}
    )


@pytest.fixture(scope="module")
def done(block, tmp_path_factory):
    """Returns a method's run, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = run_recipe(recipe(block(name)), tmp_path_factory.mktemp(name) / "run").path
        return made[name]

    return of


@every
def test_what_is_planned_is_spent_on_every_account(name, block, done):
    plan = plan_recipe(recipe(block(name)))
    spent = accounts(done(name))
    assert {account for account, of in spent.items() if of["flops"]} == {
        account for account, of in plan.accounts.items() if of["flops"]
    }
    for account, planned in plan.accounts.items():
        for column in ("supervised", "processed", "flops"):
            assert planned[column] == pytest.approx(spent[account][column], rel=0.1), (account, column)


@every
def test_the_summary_says_what_the_file_does(name, done):
    said = summary(done(name)).get("selection")
    if name == "all":
        assert said is None and not (done(name) / "selection.parquet").exists()
        return
    assert said["type"] == name and 0 < said["kept"]["supervised"] <= 0.33 * said["pool"]["supervised"]
    if name != "file":
        assert said["kept"]["examples"] == len(kept(done(name)))
        assert {row["task"] for row in rows(done(name))} == set(NAMES)


@measuring
def test_stopped_and_started_again_it_is_as_if_never_stopped(name, block, done, tmp_path, monkeypatch):
    signal = type(SELECTIONS.build(block(name)).needs()[0])
    show, shown = signal.show, []

    def stopped(self, chunk):
        shown.append(chunk)
        if len(shown) == 3:
            raise KeyboardInterrupt
        return show(self, chunk)

    monkeypatch.setattr(signal, "show", stopped)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe(block(name)), out)
    run_recipe(recipe(block(name)), out)
    looks = SELECTIONS.build(block(name)).needs()[0].looks
    assert len(shown) == 1 + looks * len(NAMES)
    for file in ("selection.parquet", "ledger.json", "mixture.json", "model/model.safetensors"):
        assert (out / file).read_bytes() == (done(name) / file).read_bytes(), file


@pytest.mark.parametrize("name", [name for name in SELECTIONS if name not in ("all", "file", *drawing)])
def test_another_order_of_tasks_keeps_the_same(name, block, tmp_path):
    """But for those at the edge, which rounding may order otherwise."""
    tasks = {**BASE["tasks"], "names": list(reversed(NAMES))}
    first, second = (
        select_recipe(asked, tmp_path / f"{at}.parquet").path
        for at, asked in enumerate((recipe(block(name)), recipe(block(name), tasks=tasks)))
    )
    scores = [{(r["task"], r["id"]): r["score"] for r in pq.read_table(f).to_pylist()} for f in (first, second)]
    assert scores[0].keys() == scores[1].keys()
    assert all(scores[1][key] == pytest.approx(score, rel=1e-4, abs=1e-5) for key, score in scores[0].items())
    mine, theirs = (kept(file.parent, file.name) for file in (first, second))
    assert len(mine ^ theirs) <= 2


@every
def test_one_task_alone(name, block, tmp_path):
    """All of it is judged by itself; no block of targets says more."""
    tasks = {**BASE["tasks"], "names": ["copy"]}
    given = {"type": "file", "path": str(tmp_path / "one.parquet")}
    if name == "file":
        select_recipe(recipe({"type": "random", "limit": "33%"}, tasks=tasks), tmp_path / "one.parquet")
    asked = recipe(given if name == "file" else block(name), tasks=tasks, budget="10%")
    folder = run_recipe(asked, tmp_path / "run").path
    assert list(summary(folder)["final"]["validation"]) == ["copy"]


@pytest.mark.parametrize("name", ["bm25", "embedding", "perplexity"])
def test_without_targets_the_tasks_are_them(name, block, done, tmp_path):
    named = recipe(block(name), targets={"tasks": list(NAMES)})
    file = select_recipe(named, tmp_path / "kept.parquet").path
    assert kept(file.parent, file.name) == kept(done(name))
    if name != "perplexity":  # in which targets have no say
        other = recipe(block(name), targets={"tasks": ["sort"]})
        assert kept(tmp_path, select_recipe(other, tmp_path / "other.parquet").path.name) != kept(done(name))


@every
def test_is_an_attribute_of_the_family_under_its_class_name(name):
    cls = SELECTIONS.get(name)
    assert getattr(selections, cls.__name__) is cls
    assert cls.__name__ in selections.__all__ and cls.__name__.lower() == name
    assert "Cost:" in cls.__doc__ and ("What it optimises:" in cls.__doc__) == (not cls.plain)


@every
def test_unknown_setting_names_its_path(name):
    with pytest.raises(ApportionError, match=r"Unknown key 'selection\.foo'"):
        SELECTIONS.build({"type": name, "foo": 3})


@every
def test_it_asks_for_one_signal_at_most_which_says_what_it_costs(name, block):
    needs = SELECTIONS.build(block(name)).needs()
    assert len(needs) <= 1
    for signal in needs:
        assert isinstance(signal, PoolSignal) and signal.account == "select" and signal.looks >= 1
    assert bool(needs) == (name not in ("all", "random", "file"))
