"""Targets: the tasks' own halves, or some of the tasks by name with an importance, and a run that is steered by them."""

import json

import pytest
import torch

from apportion._errors import ApportionError
from apportion.plans.build import load_data
from apportion.plans.recipe import overridden, parse_recipe
from apportion.tasks.targets import held_out as halves_of
from apportion.tasks.validation import batched
from tests.training.runs import TINY, history, ledger, run
from tests.training.units import random_tasks

TASKS = random_tasks(sizes=(5, 6, 7, 8))
OWN, FINDINGS = halves_of(TASKS)
SMALL = overridden(TINY, ["tasks={source: playground, scale: 0.05, max_length: 96}"])


def examples(half):
    return [[(id(split), index) for _, split, index in part] for part in half]


def test_the_tasks_halves_are_targets_all_alike():
    assert OWN.names == TASKS.names == ("copy", "reverse", "sort", "upper")
    assert OWN.are_tasks and len(OWN) == 4 and FINDINGS == []
    assert OWN.importance.tolist() == [1.0] * 4 and OWN.importance.dtype == torch.float64
    for task, (report, steer) in enumerate(zip(OWN.report, OWN.steer, strict=True)):
        assert {at for at, _, _ in [*report, *steer]} == {task}
        assert sorted(i for _, _, i in [*report, *steer]) == list(range(8))


@pytest.mark.parametrize("count", [1, 4, 5, 11, 1000])
def test_fewer_examples_to_steer_by_are_shared_out_evenly_and_are_the_first(count):
    fewer = OWN.steered_by(count)
    sizes = [len(items) for items in fewer.steer]
    whole = [len(items) for items in OWN.steer]
    assert sum(sizes) == min(max(count, len(OWN)), sum(whole)) and min(sizes) >= 1
    assert all(n == most or n + 1 >= max(sizes) for n, most in zip(sizes, whole, strict=True))
    assert examples(fewer.steer) == [items[:n] for items, n in zip(examples(OWN.steer), sizes, strict=True)]
    assert examples(fewer.report) == examples(OWN.report)


def test_named_targets_keep_the_tasks_order_and_take_their_importance_along():
    targets = OWN.named({"upper": 0.5, "reverse": 4}, TASKS.names)
    assert targets.names == ("reverse", "upper") and len(targets) == 2
    assert targets.importance.tolist() == [4.0, 0.5] and targets.importance.dtype == torch.float64
    assert not targets.are_tasks
    for mine, theirs in ((targets.report, OWN.report), (targets.steer, OWN.steer)):
        assert examples(mine) == examples([theirs[1], theirs[3]])
        # What is picked says which target it is of, so that losses come by target.
        assert [{at for at, _, _ in part} for part in mine] == [{0}, {1}]
    assert sorted(set(batched([item for part in targets.steer for item in part], 100, 0)[0].tasks.tolist())) == [0, 1]
    assert [{at for at, _, _ in part} for part in OWN.steer] == [{0}, {1}, {2}, {3}]


def test_all_tasks_named_are_the_tasks_in_whatever_order():
    targets = OWN.named({"upper": 1, "sort": 2, "copy": 3, "reverse": 4}, TASKS.names)
    assert targets.are_tasks and targets.names == OWN.names
    assert targets.importance.tolist() == [3.0, 4.0, 2.0, 1.0]
    assert targets.report == [list(part) for part in OWN.report]


@pytest.mark.parametrize(
    ("name", "hint"), [("revers", "did you mean 'reverse'"), ("zzz", "known: copy, reverse, sort, upper")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ApportionError, match=rf"Unknown task '{name}' under 'targets\.tasks' \({hint}"):
        OWN.named({"copy": 1, name: 1}, TASKS.names)


@pytest.mark.parametrize(
    ("tasks", "key"),
    [
        *((f"{{copy: {number}}}", "tasks.copy' is") for number in ("0", "-1", ".nan", ".inf", "a", "null", "true")),
        *((tasks, "tasks") for tasks in ("{}", "[]", "copy", "[1]")),
    ],
)
def test_targets_without_a_name_and_a_finite_importance_above_0_are_refused(tasks, key):
    with pytest.raises(ApportionError, match=rf"targets\.{key}"):
        parse_recipe(overridden(SMALL, [f"targets={{tasks: {tasks}}}"]))


def test_a_list_of_names_counts_them_alike_and_data_have_them_beside_the_halves():
    recipe = parse_recipe(overridden(SMALL, ["targets={tasks: [sort, copy]}"]))
    assert recipe.resolved()["targets"]["tasks"] == ["sort", "copy"]
    assert parse_recipe(recipe.resolved()).targets == recipe.targets
    data = load_data(recipe)
    assert set(data.targets.names) == {"copy", "sort"} and data.targets.importance.tolist() == [1.0, 1.0]
    assert data.held_out.names == data.tasks.names
    assert data.sizes.importance.tolist() == [float(name in ("copy", "sort")) for name in data.tasks.names]
    every = {name: i + 1.0 for i, name in enumerate(data.tasks.names)}
    weighed = load_data(parse_recipe(overridden(SMALL, [f"targets={{tasks: {json.dumps(every)}}}"])))
    assert weighed.sizes.importance.tolist() == list(every.values())


def test_a_run_toward_two_tasks_draws_them_more_and_unlike_ones_less(tmp_path):
    settings = ("tasks.names=[copy, reverse, upper, modmul, add2, count]", "budget=1200")
    settings = ("tasks.scale=0.05", *settings, "mixture={type: adapt, refresh: 10, learning_rate: 0.1, prior: 0}")
    plain = run(tmp_path / "plain", *settings)
    toward = run(tmp_path / "toward", *settings, "targets={tasks: {copy: 4, reverse: 1}}")
    before, after = (
        {name: task["examples"] for name, task in json.loads((done.path / "mixture.json").read_text())["tasks"].items()}
        for done in (plain, toward)
    )
    # With seeds 0, 1 and 2 copy is drawn 1.28 to 1.32 times as often, count 0.53 to 0.79 times.
    assert after["copy"] > 1.15 * before["copy"] and after["count"] < 0.85 * before["count"]
    assert history(toward)[0]["mixture"] != history(toward)[-1]["mixture"]
    accounts = {name: spent["flops"] for name, spent in ledger(toward)["accounts"].items()}
    assert {name for name, flops in accounts.items() if flops} == {"train", "validation", "meta"}
    # Two targets are cheaper to follow than six; every task is reported on all the same.
    assert accounts["meta"] < ledger(plain)["accounts"]["meta"]["flops"]
    assert set(history(toward)[-1]["validation"]) == set(after)
