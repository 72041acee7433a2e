"""Tokens to reach another's best: properties that hold for every pair of curves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.runs.curves import at, best, curve, first_reach, share_to_best, statistics

losses = st.floats(0.01, 10)
gaps = st.floats(1, 1e6)


@st.composite
def curves(draw, start=None):
    steps = draw(st.lists(st.tuples(gaps, losses), min_size=1, max_size=12))
    points, spent = [], 0.0
    for gap, loss in steps:
        spent += gap
        points.append((spent, loss))
    return points


@given(curves())
def test_a_curve_against_itself_is_one(points):
    assert share_to_best(points, points) == 1.0


@given(curves(), curves(), st.floats(0.1, 10))
def test_scaling_what_was_spent_scales_the_share(mine, other, factor):
    share = share_to_best(mine, other)
    slower = share_to_best([(x * factor, y) for x, y in mine], other)
    assert (share is None) == (slower is None)
    if share is not None:
        assert slower == pytest.approx(share * factor)


@given(curves(), curves(), losses)
def test_a_lower_curve_gets_there_no_later(mine, other, drop):
    share = share_to_best(mine, other)
    sooner = share_to_best([(x, y - drop) for x, y in mine], other)
    if share is not None:
        assert sooner is not None and sooner <= share * (1 + 1e-12)


@given(curves(), losses, losses)
def test_a_lower_target_is_reached_no_sooner(points, one, two):
    low, high = sorted((one, two))
    if first_reach(points, low) is not None:
        assert first_reach(points, high) <= first_reach(points, low) * (1 + 1e-12)


@given(curves(), losses)
def test_where_the_target_is_reached_the_curve_is_there(points, target):
    spent = first_reach(points, target)
    if spent is None:
        assert min(y for _, y in points) > target
    elif spent == points[0][0]:
        assert points[0][1] <= target
    else:
        assert points[0][0] < spent <= points[-1][0]
        assert at(points, spent) == pytest.approx(target, rel=1e-3, abs=1e-3)


def test_interpolation_by_hand():
    mine = [(100.0, 4.0), (200.0, 2.0), (300.0, 3.0)]
    assert first_reach(mine, 3.0) == 150.0
    assert best(mine) == (200.0, 2.0)
    assert share_to_best(mine, [(100.0, 9.0), (600.0, 3.0), (700.0, 3.0)]) == 0.25
    assert share_to_best([(100.0, 4.0)], mine) is None
    assert share_to_best([], mine) is None and share_to_best(mine, []) is None
    assert share_to_best(mine, [(0.0, 3.0), (100.0, 5.0)]) is None


def test_a_curve_is_the_validated_records_in_tokens_or_in_all_flops():
    def spent(n):
        return {"train": {"supervised": n, "flops": 10.0 * n}, "meta": {"supervised": 5, "flops": 7.0}}

    history = [
        {"spent": {}, "macro": 5.0},
        {"spent": spent(1)},
        {"spent": spent(2), "macro": 4.0, "worst": 6.0},
        {"spent": spent(3), "macro": None},
    ]
    assert curve(history, "macro") == [(0.0, 5.0), (2.0, 4.0)]
    assert curve(history, "macro", total_flops=True) == [(0.0, 5.0), (27.0, 4.0)]
    assert curve(history, "worst") == [(2.0, 6.0)]


def test_statistics_leave_out_what_is_missing():
    assert statistics([1.0, None, 3.0]) == {"mean": 2.0, "min": 1.0, "max": 3.0}
    assert statistics([None]) is None
    assert statistics([0.1, 0.1, 0.1]) == {"mean": 0.1, "min": 0.1, "max": 0.1}
