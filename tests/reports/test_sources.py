"""Which sources were worth it, in words: only what every seed agrees on, and never what a number does not say."""

from dataclasses import replace

import pytest

from apportion.reports.sources import told_apart, worth_it
from apportion.reports.view import load
from tests.reports.synthetic import write_comparison

START = {"a": 0.1, "b": 0.1, "c": 0.4, "d": 0.4}


def end(**shares):
    return START | shares


def said(ends, tokens=None, start=START, targets=()):
    return told_apart("adapt", [start] * len(ends), ends, tokens or ends, targets)


def test_what_all_seeds_agree_on_is_named():
    ends = [end(a=0.5, b=0.03, c=0.37), end(a=0.31, b=0.02, c=0.57)]
    assert said(ends, tokens=[end(a=0.4), end(a=0.2)]) == [
        "Worth it, says adapt: a ended above three times its starting share in both seeds, 30 % of all tokens trained on.",
        "Not worth it, says adapt: b ended under a third of its starting share in both seeds.",
    ]


def test_several_sources_are_ordered_by_how_far_they_went():
    start = dict.fromkeys("abcdef", 1 / 6)
    ends = [{"a": 0.01, "b": 0.02, "c": 0.17, "d": 0.2, "e": 0.3, "f": 0.3}]
    assert said(ends, start=start) == [
        "Not worth it, says adapt: a and b ended under a third of their starting share in the one seed run. "
        "The largest rise: e, from 17 % of the draws to 30 %."
    ]


def test_what_seeds_disagree_on_is_said_to_be_that():
    ends = [end(a=0.5, c=0.0), end(a=0.12)]
    first, second = said(ends)
    assert first.startswith("adapt told no source clearly apart") and "in both seeds" in first
    assert second == "The seeds do not agree on a and c."


def test_a_mixture_that_hardly_moved_says_how_little():
    (only,) = said([end(a=0.12, d=0.38), end(a=0.14, d=0.36)])
    assert (
        "The largest rise: a, from 10 % of the draws to 13 %; the largest fall: d, from 40 % of the draws to 37 %."
        in only
    )


def test_targets_are_no_sources():
    ends = [end(a=0.4, b=0.01)]
    assert not any("a ended" in sentence or "a and" in sentence for sentence in said(ends, targets=("a",)))
    assert said(ends, targets=("b", "c", "d")) == []  # one source cannot be told from others


def test_a_source_that_never_had_a_share_is_left_out():
    (only,) = said([{"a": 0.2, "b": 0.4, "c": 0.4, "d": 0.0}], start={"a": 0.3, "b": 0.3, "c": 0.4, "d": 0.0})
    assert "The largest rise: b" in only and "the largest fall: a" in only


@pytest.mark.parametrize(("arm", "sentences"), [("adapt", 2), ("uniform", 0)])
def test_of_runs_only_learnt_arms_have_something_to_say(tmp_path, arm, sentences):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0, 1), records=20, targets={"parity": 1.0})
    found = worth_it(load([tmp_path]).arm(arm), {"parity"})
    assert len(found) >= sentences and bool(found) == bool(sentences)
    if found:
        assert found[-1].startswith("The targets’ own examples were ")


def test_runs_that_wrote_no_mixture_say_nothing(tmp_path):
    write_comparison(tmp_path, arms=("adapt",), seeds=(0,), records=20)
    arm = load([tmp_path]).arm("adapt")
    assert worth_it(arm, ()) and not worth_it(replace(arm, runs=(replace(arm.shown, mixture=None),)), ())
