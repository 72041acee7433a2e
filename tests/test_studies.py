"""The studies' data are what their pages say; the runs themselves are too long for a test."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from studies.kv_budgets import recall
from studies.natural import VALIDATION
from studies.slices import recorded
from studies.thinking.arms import ARMS as THINKING
from studies.thinking.arms import TASKS
from studies.thinking.run import recipe_of
from studies.tokens_to_target.cells import ARMS, ablation, generated, groups, natural, sweep, tuning
from studies.tokens_to_target.paper import LAMBDAS, TAUS, paper_generated, paper_natural, paper_sweep, paper_tuning
from studies.tokens_to_target.suites import COPIES, NOISE, SHARE, SUITES, VALIDATED
from studies.tokens_to_target.summarise import sign_test
from studies.weights.pools import SPOILT, spoilt

from apportion.tasks.splits import normalised, position
from apportion.training.rl.spec import RlSpec


@pytest.mark.parametrize("name", sorted(SUITES))
def test_every_task_has_different_inputs_and_enough_to_validate_on(name):
    suite = SUITES[name]()
    assert suite == SUITES[name]()
    for task, pairs in suite.items():
        assert len({prompt for prompt, _ in pairs}) == len(pairs)
        validated = sum(position(normalised(prompt)) < SHARE for prompt, _ in pairs)
        assert validated == VALIDATED or task == "add1"


def test_suites_have_what_they_are_named_for():
    noisy, redundant, related = (SUITES[name]() for name in ("noisy", "redundant", "related"))
    assert len(NOISE) / len(noisy) == 0.2
    assert all(prompt.partition(" ")[2] == answer for name in COPIES for prompt, answer in redundant[name])
    left, right = dict(related["move-left"]), dict(related["move-right"])
    shared = set(left) & set(right)
    assert shared and any(left[prompt] != right[prompt] for prompt in shared)
    sizes = [
        sum(position(normalised(prompt)) >= SHARE for prompt, _ in pairs) for pairs in SUITES["imbalanced"]().values()
    ]
    assert max(sizes) / min(sizes) == 1000


def test_what_is_added_to_a_pool_is_never_validated_on():
    rows = [{"prompt": f"say {i}", "completion": f"word {i}"} for i in range(300)]
    pool = spoilt(rows, random.Random(0))
    added = pool[len(rows) :]
    assert pool[: len(rows)] == rows
    assert len(added) / len(pool) == pytest.approx(SPOILT, abs=0.01)
    assert all(position(normalised(row["prompt"])) >= VALIDATION for row in added)


def test_every_cell_has_a_folder_of_its_own_and_no_tuning_seed_is_reported():
    reported = [*generated(), *natural()]
    cells = [*reported, *tuning(), *ablation(), *sweep(), *groups()]
    assert len({cell.folder for cell in cells}) == len(cells)
    assert len(reported) == (5 * 5 + 5 * 3) * len(ARMS)
    assert not {cell.seed for cell in reported} & {cell.seed for cell in [*tuning(), *ablation(), *sweep(), *groups()]}


def test_the_papers_plain_method_is_tuned_where_nothing_of_it_is_reported():
    reported = [*paper_generated(), *paper_sweep(), *paper_natural()]
    assert len({cell.folder for cell in [*reported, *paper_tuning()]}) == len(reported) + len(paper_tuning())
    assert len(paper_generated()) == 25 and len(paper_natural()) == 15
    assert len(paper_sweep()) == (len(TAUS) * len(LAMBDAS) - 1) * 2 * 3
    assert not {cell.seed for cell in reported} & {cell.seed for cell in paper_tuning()}


def test_runs_that_lie_elsewhere_stay_in_the_record(tmp_path):
    file = tmp_path / "result.json"
    first = [{"arm": "a", "seed": 0, "x": 1}, {"arm": "a", "seed": 1, "x": 2}]
    assert recorded(file, "cells", first, ("arm", "seed")) == first
    file.write_text(json.dumps({"cells": first}))
    again = {"arm": "a", "seed": 1, "x": 3}
    assert recorded(file, "cells", [again], ("arm", "seed")) == [first[0], again]
    assert recorded(file, "others", [again], ("arm", "seed")) == [again]


def test_sign_test():
    assert sign_test(5, 5) == 1.0
    assert sign_test(10, 0) == pytest.approx(2 / 2**10)
    assert sign_test(0, 10) == sign_test(10, 0)


@pytest.mark.parametrize("before", [0.5, 0.875])
def test_a_recalled_value_stands_once_before_it_is_asked_for(before):
    ids, labels = recall.sequences(np.random.default_rng(0), 20, 96, 24, before)
    for row, wanted in zip(ids, labels, strict=True):
        told = [divmod(token, recall.VALUES) for token in row if token < recall.KEY]
        held = dict(told)
        assert len(held) == len(told) == 24
        asked = [at for at in range(96) if wanted[at] != -100]
        assert asked and min(asked) > before * 96
        for at in asked:
            assert row[at] == wanted[at] == recall.VALUE + held[row[at - 1] - recall.KEY]


def test_what_the_study_asks_has_one_right_answer_in_its_context():
    ids, keys, values = recall.question(np.random.default_rng(1), 256, 32, 16)
    held = dict(divmod(token, recall.VALUES) for token in ids if token < recall.KEY)
    assert len(held) == 32 and len(set(keys)) == 16
    assert [recall.VALUE + held[key - recall.KEY] for key in keys] == list(values)


def test_arms_of_the_thinking_study_are_recipes_that_differ_in_what_they_are_named_for(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    task = TASKS["arithmetic"]
    made = {arm: recipe_of(task, arm, 1) for arm, block in THINKING.items() if block is not None}
    specs = {arm: RlSpec(**recipe["rl"]) for arm, recipe in made.items()}
    assert {recipe["budget"]["generated"] for recipe in made.values()} == {task.generated}
    assert {recipe["seed"] for recipe in made.values()} == {1}
    assert len({spec.title for spec in specs.values()}) == len(specs)
    for arm, spec in specs.items():
        assert spec.type == arm.partition("-")[0] and spec.budgets[-1] == task.budgets[-1]
        assert (spec.rewards.length is not None) == arm.endswith("length")
    assert specs["brpo-linear"].prior == "linear" and specs["brpo-uniform-own"].baseline == "own"
    # What is judged is finer than what is trained toward, and the same for all.
    assert set(task.budgets) <= set(task.measured)
