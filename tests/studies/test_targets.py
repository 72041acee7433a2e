"""The study of targets: its suites are what they are named for, its arithmetic is right, and what it adds to a run works."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from studies.targets.arms import ARMS, drawn, merged
from studies.targets.cells import FRESH_SEEDS, SEARCH_SEEDS, SEEDS, TUNING_SEEDS, Cell
from studies.targets.fitting import dirichlets, law_of, lowest, pairs
from studies.targets.hidden import hidden
from studies.targets.mixtures import Misled, TwoPhases, misled
from studies.targets.quality import quality, share
from studies.targets.suites import GENERATED, LANGUAGES, UNSEEN, Q, prerequisites, write
from studies.targets.summarise import best_static, compared, kl, least, regret

from apportion.mixtures import Feedback, TaskSizes
from apportion.plans.recipe import parse_recipe, read_yaml
from apportion.plans.run import run_recipe
from apportion.tasks.goals import DataSpec, TargetsSpec
from apportion.tasks.spec import TasksSpec

SIZES = TaskSizes(("a", "b", "c"), torch.ones(3), torch.ones(3), torch.ones(3))
GAINS = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("make", [*GENERATED.values(), hidden], ids=[*GENERATED, "hidden"])
def test_suites_are_the_same_each_time_and_no_prompt_of_a_target_is_anywhere_else(make):
    suite = make()
    assert suite == make()
    assert 8 <= len(suite.sources) <= 12
    trained = {prompt for pairs in suite.sources.values() for prompt, _ in pairs}
    for name, goal in suite.unseen.items():
        unseen, had = ({prompt for prompt, _ in rows} for rows in (goal, suite.targets[name]))
        assert len(unseen) == len(goal) >= UNSEEN
        assert not unseen & (trained | had) and not had & trained
    assert set(suite.best) | set(suite.bad) <= set(suite.sources) and not set(suite.best) & set(suite.bad)
    assert sum(suite.best.values()) == pytest.approx(1)


@pytest.mark.parametrize("make", [*GENERATED.values(), hidden, partial(quality, ("next", "swap"))])
def test_a_target_that_may_be_trained_on_is_split_by_the_library_as_any_other(make, tmp_path):
    write(make(), tmp_path / "data")
    given = TargetsSpec(path=str(tmp_path / "data/targets"), train=4.0)
    tasks = DataSpec(TasksSpec(path=str(tmp_path / "data/sources")), given).load()
    for name in tasks.targets:
        train, measured = len(tasks[name].train), len(tasks[name].validation)
        # Of the smallest twenty, a third to two thirds; of hundreds, about half.
        assert 0.33 < measured / (train + measured) < 0.67


def test_suites_have_what_they_are_named_for():
    suites = {name: make() for name, make in GENERATED.items()}
    (goal,) = suites["contradiction"].unseen.values()
    right = {prompt.split()[1]: answer for prompt, answer in goal}
    for name in suites["contradiction"].bad:
        wrong = [prompt.split()[1] for prompt, _ in suites["contradiction"].sources[name]]
        assert all(prompt.startswith("move ") for prompt, _ in suites["contradiction"].sources[name])
        assert not set(wrong) & set(right)
    assert len(suites["optimum"].sources) == LANGUAGES and suites["optimum"].best == Q and suites["optimum"].known
    lengths = [np.mean([len(a) for _, a in pairs]) for pairs in suites["lengths"].sources.values()]
    assert max(lengths) > 4 * min(lengths)
    assert [len(suites[f"scarcity-{n}"].sources["flip"]) for n in (20, 100, 500)] == [20, 100, 500]
    assert (
        min(suites["prerequisites"].sources, key=lambda n: len(suites["prerequisites"].sources[n]))
        == "turn-next-capitals"
    )


def test_a_language_of_the_target_is_drawn_by_its_weight():
    # Which language a text is of shows in its letters: the mean of what only each writes is q's.
    suite = GENERATED["optimum"]()
    names = list(suite.sources)

    def letters(pairs):
        return np.array([np.mean([a[:2] == x + y for _, a in pairs]) for x in "abcdefgh" for y in "abcdefgh"])

    starts = np.stack([letters(suite.sources[name]) for name in names], axis=1)
    found = np.linalg.lstsq(starts, letters(suite.unseen["mixture"]), rcond=None)[0]
    assert found == pytest.approx([Q.get(name, 0.0) for name in names], abs=0.1)


def test_what_is_known_of_sources_of_mixed_quality_is_read_off_their_answers():
    assert share([("sort cab", "abc"), ("sort cab", "cab"), ("upper ab", "AB")]) == pytest.approx(2 / 3)
    assert share([("sort cab", "abc"), ("sort cab", "cab"), ("upper ab", "AB")], ("sort",)) == pytest.approx(1 / 3)
    suite = quality(("reverse", "sort"))
    assert len(suite.bad) == 5 and sum(suite.best.values()) == pytest.approx(1)
    first, second = sorted(suite.best, key=suite.best.get)[-2:]
    assert min(suite.best[first], suite.best[second]) > 0.3 and not {first, second} & set(suite.bad)


def test_two_phases_change_once():
    mixture = TwoPhases(first={"a": 1.0}, then={"b": 3.0, "c": 1.0}, until=0.3)
    state = mixture.init(SIZES)
    assert mixture.proportions(state).tolist() == [1, 0, 0]
    state = mixture.update(state, Feedback(0.29))
    assert mixture.proportions(state).tolist() == [1, 0, 0]
    state = mixture.update(state, Feedback(0.31))
    assert mixture.proportions(state).tolist() == [0, 0.75, 0.25]


def test_a_misled_mixture_is_told_as_much_as_was_measured():
    assert misled(GAINS, "turned", 0, 0).tolist() == (-GAINS).tolist()
    permuted = misled(GAINS, "permuted", 3, 0)
    assert sorted(permuted.tolist()) == sorted(GAINS.tolist()) and not (permuted == GAINS).any()
    assert torch.equal(permuted, misled(GAINS, "permuted", 3, 7))
    first, second = (misled(GAINS, "random", 3, count) for count in (0, 1))
    assert not torch.equal(first, second)
    assert float(first.norm()) == pytest.approx(float(GAINS.norm()))


def test_the_turned_sign_turns_what_is_drawn():
    block = {"type": "adapt"}
    counts = torch.full((3,), 5.0).double()
    told = Feedback(0.1, alignment=GAINS, drawn=counts, squares=1 + GAINS**2)
    turned = Misled(of=block, told="turned")
    other = turned.inner
    state, plain = turned.update(turned.init(SIZES), told), other.update(other.init(SIZES), told)
    opposite = other.update(other.init(SIZES), replace(told, alignment=-GAINS))
    assert torch.equal(turned.proportions(state), other.proportions(opposite))
    assert not torch.equal(turned.proportions(state), other.proportions(plain))


def test_the_law_is_found_and_its_lowest_point_lies_between_it_and_the_best_run():
    x = dirichlets(60, 4, 0)
    assert x.shape == (60, 4) and x.sum(1) == pytest.approx(1)
    slopes = np.array([-2.0, 1.0, 0.0, 1.5])
    losses = 0.5 + np.exp(0.3 + x @ slopes)
    law = law_of(x, losses)
    assert law.error < 0.05
    best = x[losses.argmin()]
    found = lowest([law], best)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert 0.5 + np.exp(0.3 + found @ slopes) <= losses.min() + 1e-3
    worse = lowest([law_of(x, 1 / losses)], best)
    assert worse[0] < best[0]


def test_pairs_are_two_mixtures():
    around = np.array([0.7, 0.2, 0.1])
    found = pairs(200, around, 1)
    assert found[:, :3].sum(1) == pytest.approx(1) and found[:, 3:].sum(1) == pytest.approx(1)
    assert abs(found - np.tile(around, 2)).min(0).max() < 0.05
    assert lowest([law_of(found, 1 + found[:, 0] + found[:, 4])], found[0], parts=2).reshape(2, 3).sum(
        1
    ) == pytest.approx(1)


def test_regret():
    assert regret(1.0, 2.0, 1.0) == 0 and regret(2.0, 2.0, 1.0) == 1
    assert regret(2.5, 2.0, 1.0) == 1.5
    assert regret(1.0, 1.04, 1.0) is None


def test_kl_counts_names_without_a_share():
    q = {"a": 0.5, "b": 0.5}
    assert kl(q, q) == pytest.approx(0)
    assert kl({"a": 1.0}, q) == pytest.approx(math.log(2), abs=0.01)
    assert math.isfinite(kl(q, {"a": 1.0, "b": 0.0}))


def result(arm, seed, target):
    return {"arm": arm, "seed": seed, "target": target, "shares": {"a": 0.5, "b": 0.5}}


def test_a_run_is_compared_with_uniform_and_the_lower_oracle_over_all_seeds():
    found = [
        *(result("uniform", s, t) for s, t in enumerate((1.9, 2.1))),
        *(result("upsample-0.5", s, t) for s, t in enumerate((1.2, 1.6))),
        *(result("oracle", s, t) for s, t in enumerate((1.1, 1.3))),
        *(result("oracle-phases", s, t) for s, t in enumerate((0.9, 1.1))),
        result("often-1", 0, 0.1),
        result("adapt", 0, 1.5),
    ]
    assert best_static(found, "adapt-often") == "often-1"
    assert least(found) == pytest.approx(1.0) and best_static(found, "adapt") == "upsample-0.5"
    last = compared(found, {"a": 0.5, "b": 0.5})[-1]
    assert last["regret"] == pytest.approx(0.5) and last["kl_to_oracle"] == pytest.approx(0) and "shares" not in last
    assert compared(found[:4], None)[0]["regret"] is None


def test_draws_are_counted_among_sources_alone():
    mixture = {"tasks": {"a": {"examples": 30}, "b": {"examples": 10}, "goal": {"examples": 60}}}
    assert drawn(mixture, ["a", "b"]) == {"a": 0.75, "b": 0.25}
    assert drawn({"tasks": {"a": {"examples": 0}}}, ["a"]) == {}


def test_no_seed_of_tuning_or_search_is_reported():
    reported = {seed for seeds in SEEDS.values() for seed in seeds}
    assert not reported & {*TUNING_SEEDS, *SEARCH_SEEDS, *FRESH_SEEDS} and not set(SEARCH_SEEDS) & set(FRESH_SEEDS)
    folders = [Cell("contradiction", "llama", 0, arm).folder for arm in ARMS]
    assert len(set(folders)) == len(folders)
    shared, own = (
        {Cell(f"natural-{goal}", "llama", 0, arm).folder for goal in ("question-answering", "title-generation")}
        for arm in ("uniform", "adapt")
    )
    assert len(shared) == 1 and len(own) == 2


def test_an_arm_changes_the_keys_that_it_names():
    recipe = {"targets": {"path": "p"}, "mixture": {"type": "uniform"}, "seed": 0}
    found = merged(recipe, {"targets": {"train": 4}, "mixture": {"type": "upsample", "share": 0.5}})
    assert found == {"targets": {"path": "p", "train": 4}, "mixture": {"type": "upsample", "share": 0.5}, "seed": 0}


def test_a_run_is_measured_on_what_it_never_had(tmp_path):
    from studies.targets.measure import unseen_losses

    suite = prerequisites()
    write(suite, tmp_path / "data")
    assert json.loads((tmp_path / "data/known.json").read_text())["best"] == suite.best
    values = read_yaml("studies/targets/generated.yaml")
    values["tasks"]["path"], values["targets"]["path"] = str(tmp_path / "data/sources"), str(tmp_path / "data/targets")
    values["model"]["config"] |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    half = dict.fromkeys(suite.sources, 1 / len(suite.sources))
    values |= {
        "budget": 3000,
        "mixture": {"type": "studies.targets.mixtures:TwoPhases", "first": half, "then": suite.best},
    }
    run_recipe(parse_recipe(values), tmp_path / "run")
    losses = unseen_losses(tmp_path / "run/model", tmp_path / "data/unseen", 64)
    final = json.loads((tmp_path / "run/summary.json").read_text())["final"]
    assert losses["deepest"] == pytest.approx(final["target"], rel=0.1)
    last = json.loads((tmp_path / "run/mixture.json").read_text())["final"]
    assert last["turn-next"] == pytest.approx(0.35) and last["sort"] == 0
