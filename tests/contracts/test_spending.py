"""What a plan says of a method is what a run of it spends, on every account, to within a tenth."""

from __future__ import annotations

import json

import pytest

from apportion.mixtures import MIXTURES
from apportion.plans.plan import plan_recipe
from apportion.plans.recipe import overridden, parse_recipe
from apportion.plans.run import run_recipe
from apportion.tasks import load_tasks
from apportion.weights import WEIGHTS
from tests.training.runs import TINY

SMALL = overridden(
    TINY,
    ["tasks={source: playground, scale: 0.2, max_length: 96}", "budget=6000", "training.per_device_eval_batch_size=32"],
)
NAMES = load_tasks(source="playground", scale=0.2).names
SHARES = {name: (i + 1) / sum(range(len(NAMES) + 1)) for i, name in enumerate(NAMES)}
# Those that measure seldom do so often enough here for one time more or less to be under a tenth. A plan is of the
# starting mixture: probes leave it by little here, so that what a draw costs stays what it is.
OFTEN = {"refresh": 5, "max_cost": 0.5}
SETTINGS = {
    "fixed": {"shares": SHARES},
    "loss": OFTEN,
    "progress": OFTEN,
    "probes": {"keep": None, "sharpness": 0.05},
    "doremi": {"trial": 0.2, "eta": 0.05},
    "regmix": {"trials": 8, "trial": 0.03, "fit": "linear", "cap": 0.3},
}
# A finished run on the same tasks, made once.
WEIGHTED = {"doremi": {"reference": "${APPORTION_REFERENCE}", "eta": 0.05}}
# Draws on targets, which may be tasks.
OWN = {"path": {"a": "${APPORTION_GOALS}/a.jsonl", "b": "${APPORTION_GOALS}/b.jsonl"}}
NEEDED = {"upsample": {"targets": {"tasks": ["copy", "reverse"]}}}
PLAIN = {"estimator": "forward", "step": "plain", "prior": 0, "memory": 1, "floor": 0, "examples_per_task": 1}
ACCUMULATED = {"training.per_device_train_batch_size": 4, "training.gradient_accumulation_steps": 2}
CELLS = {
    **{
        f"mixture-{name}": {"mixture": {"type": name, **SETTINGS.get(name, {})}, **NEEDED.get(name, {})}
        for name in MIXTURES
    },
    **{f"weights-{name}": {"weights": {"type": name, **WEIGHTED.get(name, {})}} for name in WEIGHTS},
    **{
        f"weights-{name}-accumulated": {"weights": {"type": name, **WEIGHTED.get(name, {})}, **ACCUMULATED}
        for name in ("adapt", "doremi", "linupper")
    },
    **{f"adapt-refresh-{n}": {"mixture": {"type": "adapt", "refresh": n}} for n in (5, 6, 7, 20)},
    **{
        f"adapt-{name}": {"mixture": {"type": "adapt", "estimator": name, "refresh": 40, "examples_per_task": 1}}
        for name in ("forward", "unrolled")
    },
    **{f"adapt-refresh-{n}": {"mixture": {"type": "adapt", "refresh": n}} for n in ("3%", "7%", "30%", "100%")},
    **{
        f"adapt-refresh-{n}-all-read": {"mixture": {"type": "adapt", "refresh": n, "reads": None}}
        for n in ("0.1%", "12%")
    },
    **{
        f"adapt-{name}-refresh-{n}": {
            "mixture": {"type": "adapt", "estimator": name, "refresh": n, "examples_per_task": 1}
        }
        for name, n in (("forward", "5%"), ("forward", "40%"), ("unrolled", "20%"))
    },
    "adapt-paper": {"objective": "worst", "mixture": {"type": "adapt", "refresh": "2%", **PLAIN}},
    "adapt-share-in-flops": {"budget": "2e10 FLOPs", "mixture": {"type": "adapt", "refresh": "5%"}},
    "in-flops": {"budget": "2e10 FLOPs", "mixture": "adapt", "weights": "adapt"},
    "weights-doremi-in-flops": {"budget": "1e10 FLOPs", "weights": {"type": "doremi", **WEIGHTED["doremi"]}},
    "in-processed": {"budget": "20k processed", "mixture": {"type": "uniform", "unit": "tokens"}},
    "in-flops-accumulated": {"budget": "2e10 FLOPs", "weights": "linupper", **ACCUMULATED},
    "every-step-read": {"mixture": {"type": "adapt", "refresh": 25, "reads": None}},
    "few-steps": {"budget": 300, "training.per_device_train_batch_size": 32, "validation.every": 0.05},
    "packed-lora": {"packing": True, "lora": {"r": 4}, "mixture": {"type": "adapt", "refresh": 20}},
    "own-targets": {"targets": OWN, "mixture": {"type": "adapt", "refresh": 20}},
    "own-targets-trained-on": {"targets": {**OWN, "train": 4}, "mixture": {"type": "upsample", "share": 0.2}},
    # A plan is of the starting mixture: these leave it by little, so that what a draw costs stays what it is.
    "targets": {
        "targets": {"tasks": ["copy", "reverse"]},
        "mixture": {"type": "adapt", "refresh": 20, "learning_rate": 0.1},
    },
    "upsample-grid": {
        "targets": {"tasks": ["copy", "reverse"]},
        "mixture": {"type": "upsample", "share": "grid", "grid": [0.4, 0.5], "trial": 0.3},
    },
    "targets-by-evidence": {"targets": {"tasks": ["copy", "reverse"]}, "mixture": "adapt"},
    "targets-by-evidence-in-flops": {
        "targets": {"tasks": ["copy"]},
        "mixture": {"type": "adapt", "learning_rate": 0.1},
        "budget": "2e10 FLOPs",
    },
}


@pytest.fixture(autouse=True)
def goals(tmp_path, monkeypatch):
    """Two files of targets, where `OWN` looks for them."""
    for name, count in (("a", 90), ("b", 40)):
        rows = [{"prompt": f"{name} {n}", "completion": f"{n:05d}"} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setenv("APPORTION_GOALS", str(tmp_path))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    run_recipe(parse_recipe(overridden(SMALL, ["budget=500"])), folder)
    return folder


@pytest.fixture(autouse=True)
def referred(request, monkeypatch):
    """The reference, where `WEIGHTED` looks for it, for those that need one."""
    if "weights-doremi" in request.node.name:
        monkeypatch.setenv("APPORTION_REFERENCE", str(request.getfixturevalue("reference")))


@pytest.mark.parametrize("name", CELLS)
def test_planned_is_spent_within_a_tenth_on_every_account(tmp_path, name):
    values = overridden(SMALL, [f"{key}={value}" for key, value in CELLS[name].items() if "." in key])
    recipe = parse_recipe({**values, **{key: value for key, value in CELLS[name].items() if "." not in key}})
    plan = plan_recipe(recipe)
    spent = run_recipe(recipe, tmp_path / "run").summary["spent"]
    assert {account for account, of in spent.items() if of["flops"]} == {
        account for account, of in plan.accounts.items() if of["flops"]
    }
    for account, planned in plan.accounts.items():
        for column in ("supervised", "processed", "flops"):
            assert planned[column] == pytest.approx(spent[account][column], rel=0.1), (account, column)
