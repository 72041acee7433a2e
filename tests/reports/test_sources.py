"""Which sources were worth it, in words: only what every seed agrees on, and never what a number does not say."""

from dataclasses import replace

import pytest

from apportion.reports.sources import Course, told_apart, worth_it
from apportion.reports.traced import plain
from apportion.reports.view import load
from tests.reports.synthetic import write_comparison

START = {"a": 0.1, "b": 0.1, "c": 0.4, "d": 0.4}


def said(*ends, given=None, start=START, targets=()):
    """What is said of runs that ended so; ``given`` over the run, the same where it is left out."""
    courses = [Course(start, over, end) for over, end in zip(given or ends, ends, strict=True)]
    return [plain(sentence) for sentence in told_apart("adapt", courses, targets)]


def test_what_all_seeds_agree_on_is_named():
    ends = [{"a": 0.5, "b": 0.03, "c": 0.37, "d": 0.1}, {"a": 0.4, "b": 0.02, "c": 0.38, "d": 0.2}]
    assert said(*ends) == [
        "Worth it, says adapt: a got in both seeds more than three times its starting share, "
        "45 % of all draws from sources.",
        "Not worth it, says adapt: b ended in both seeds with under a third of its starting share.",
        "Not worth it in some seeds only: d (1 of 2).",
    ]


def test_what_counts_is_the_whole_run_and_not_its_last_swing():
    swung = {"a": 0.6, "b": 0.2, "c": 0.1, "d": 0.1}
    over = {"a": 0.15, "b": 0.15, "c": 0.3, "d": 0.4}
    assert not any(sentence.startswith("Worth it") for sentence in said(swung, given=[over]))
    # c ended low but had a large share before: it was worth it for a time.
    early = {"a": 0.1, "b": 0.1, "c": 0.7, "d": 0.1}
    late = {"a": 0.4, "b": 0.5, "c": 0.05, "d": 0.05}
    assert not any("Not worth it" in sentence and " c" in sentence for sentence in said(late, given=[early]))


def test_what_targets_take_lowers_no_source():
    start = {"a": 0.25, "b": 0.25, "t": 0.5}
    end = {"a": 0.06, "b": 0.04, "t": 0.9}
    assert said(end, start=start, targets={"t"}) == [
        "adapt told no source clearly apart.",
        "Most went to a: 60 % of all draws from sources, 50 % at the start.",
    ]
    assert "under a third" in said(end, start=start)[0]  # were t a source, a and b would have lost theirs


def test_the_least_is_named_first_and_what_most_went_to():
    start = dict.fromkeys("abcdef", 1 / 6)
    found = said({"a": 0.01, "b": 0.02, "c": 0.17, "d": 0.2, "e": 0.3, "f": 0.3}, start=start)
    assert found == [
        "Not worth it, says adapt: a and b ended in the one seed run with under a third of their starting share.",
        "Most went to e: 30 % of all draws from sources, 17 % at the start.",
    ]


def test_what_seeds_disagree_on_is_said_to_be_that():
    found = said({"a": 0.5, "b": 0.1, "c": 0.2, "d": 0.2}, {"a": 0.1, "b": 0.1, "c": 0.7, "d": 0.1})
    assert found == [
        "adapt’s seeds agree on no source.",
        "Most went to a: 30 % of all draws from sources, 10 % at the start.",
        "Worth it in some seeds only: a (1 of 2).",
        "Not worth it in some seeds only: d (1 of 2).",
    ]


def test_many_names_are_counted():
    tasks = [f"s{i}" for i in range(20)]
    start = dict.fromkeys(tasks, 0.05)
    found = said(dict.fromkeys(tasks[1:], 0.0) | {"s0": 1.0}, start=start)
    assert "s0 got in the one seed run" in found[0] and "and 11 more ended in the one seed run" in found[1]


@pytest.mark.parametrize("targets", [{"b", "c", "d"}, {"a", "b", "c", "d"}])
def test_fewer_than_two_sources_cannot_be_told_apart(targets):
    assert said({"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1}, targets=targets) == []


def test_a_source_without_a_starting_share_is_left_out():
    found = said({"a": 0.1, "b": 0.4, "c": 0.4, "d": 0.1}, start={"a": 0.3, "b": 0.3, "c": 0.4, "d": 0.0})
    assert not any("d" in sentence.split(" ")[-1] or "to d" in sentence for sentence in found)


@pytest.mark.parametrize(("arm", "speaks"), [("adapt", True), ("uniform", False)])
def test_of_runs_only_learnt_mixtures_have_something_to_say(tmp_path, arm, speaks):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0, 1), records=20, targets={"parity": 1.0})
    arms = load([tmp_path])
    found = worth_it(arms.arm(arm), {"parity"})
    assert bool(found) == speaks
    if speaks:
        drawn = [run.mixture["tasks"] for run in arms.arm(arm).runs]
        share = sum(d["parity"]["examples"] / sum(e["examples"] for e in d.values()) for d in drawn) / len(drawn)
        assert plain(found[-1]) == f"The targets’ own examples were {100 * share:.1f} % of all draws."


def test_runs_that_wrote_no_mixture_say_nothing(tmp_path):
    write_comparison(tmp_path, arms=("adapt",), seeds=(0,), records=20)
    arm = load([tmp_path]).arm("adapt")
    assert worth_it(arm, ()) and not worth_it(replace(arm, runs=(replace(arm.shown, mixture=None),)), ())


def test_a_mixture_of_tokens_is_read_in_tokens(tmp_path):
    block = {"mixture": {"type": "adapt", "unit": "tokens"}}
    write_comparison(tmp_path, arms=("adapt",), seeds=(0,), records=20, recipe=block)
    arm = load([tmp_path]).arm("adapt")
    mixture = arm.shown.mixture
    heavy = {"token_averaged": dict.fromkeys(mixture["token_averaged"], 0.001) | {"parity": 0.98}}
    run = replace(arm.shown, mixture=mixture | heavy)
    assert worth_it(replace(arm, runs=(run,)), ())[0].startswith("Worth it, says adapt: parity got")
