"""What a user adds by public names alone is planned, run, resumed, compared and reported like the library's own."""

from __future__ import annotations

import ast
import importlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

import apportion as ap
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from tests.outsider.methods import LowerHalf, Rescue, Squares, StillEmbeddings
from tests.training.runs import TINY, history, ledger, run, weights

HERE = "tests.outsider.methods"
OWN = (f"kind={HERE}:StillEmbeddings", f"weights={HERE}:LowerHalf", f"objective={HERE}:Squares")
SMALL = {**TINY, "tasks": {"source": "playground", "scale": 0.2, "max_length": 96}}


def test_it_imports_public_names_alone():
    tree = ast.parse((Path(__file__).parent / "methods.py").read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "apportion" in str(node.module)]
    assert len(imports) >= 7
    for node in imports:
        public = importlib.import_module(str(node.module)).__all__
        assert "_" not in str(node.module) and {alias.name for alias in node.names} <= set(public), node.module


def test_all_of_them_in_one_comparison(tmp_path):
    done = ap.compare(
        {"rescue": Rescue(every=20), "adapt": ap.mixtures.Adapt(estimator="forward", refresh=40), "uniform": "uniform"},
        weights=LowerHalf(),
        objective=Squares(),
        kind=StillEmbeddings(),
        out=tmp_path / "runs",
        **{key: value for key, value in SMALL.items() if key not in ("mixture", "weights")},
    )
    assert set(done.summary["arms"]) == {"rescue", "adapt", "uniform"}
    assert "rescue" in done.report().read_text("utf-8")
    models = {
        arm: load_file(tmp_path / "runs" / arm / "seed-0" / "model" / "model.safetensors")
        for arm in done.summary["arms"]
    }
    still = "model.embed_tokens.weight"
    assert (models["rescue"][still] == models["uniform"][still]).all()
    assert not (models["rescue"]["model.norm.weight"] == models["uniform"]["model.norm.weight"]).all()


def test_a_selection_of_ones_own_keeps_what_it_says(tmp_path):
    done = run(
        tmp_path / "run",
        "budget=600",
        f"selection={HERE}:Shortest",
        "selection.limit={examples: 100}",
        "mixture=proportional",
    )
    table = pq.read_table(tmp_path / "run" / "selection.parquet").to_pylist()
    lengths = {kept: [-row["score"] for row in table if row["kept"] is kept] for kept in (True, False)}
    assert max(lengths[True]) <= min(lengths[False]) and len(lengths[True]) == 100
    assert done.summary["selection"]["kept"]["examples"] == 100


def test_a_signal_of_ones_own_is_planned_as_it_is_spent(tmp_path):
    settings = (*OWN, f"mixture={{type: '{HERE}:Rescue', every: 20}}", "tasks.scale=0.2", "budget=3000")
    done = run(tmp_path / "run", *settings)
    plan = plan_recipe(parse_recipe(overridden(TINY, settings)))
    spent = ledger(done)["accounts"]
    assert spent["meta"]["flops"] > 0
    for account, planned in plan.accounts.items():
        for column in ("supervised", "processed", "flops"):
            assert planned[column] == pytest.approx(spent[account][column], rel=0.1), (account, column)
    shares = [list(record["mixture"].values()) for record in history(done)]
    assert max(shares[-1]) > 1.2 * max(shares[0])


def test_it_is_resumed_bit_for_bit(tmp_path):
    settings = (*OWN, f"mixture={{type: '{HERE}:Rescue', every: 7}}", "validation.every=25%")
    whole = run(tmp_path / "whole", *settings)
    shutil.copytree(whole.path, tmp_path / "broken")
    for name in ("summary.json", "ledger.json", "mixture.json", "validation.json"):
        (tmp_path / "broken" / name).unlink()
    shutil.rmtree(tmp_path / "broken" / "model")
    again = run(tmp_path / "broken", *settings)
    assert weights(again) == weights(whole) and ledger(again) == ledger(whole)


def test_what_the_kind_does_not_give_is_refused():
    with pytest.raises(
        ap.ApportionError, match=r"reads backward, does not go with this kind of model; 'mixture.estimator"
    ):
        parse_recipe({**SMALL, "kind": f"{HERE}:StillEmbeddings", "mixture": "adapt"})
    with pytest.raises(ap.ApportionError, match=r"'tests.outsider.methods:Rescue' is no kind"):
        parse_recipe({**SMALL, "kind": f"{HERE}:Rescue"})
