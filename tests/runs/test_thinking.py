"""Area, interval and tokens to a score of lines of score against thinking tokens."""

import math
import random

import numpy as np
import pytest

from apportion.runs.thinking import Z, area, interval, tokens_to


def test_the_area_is_the_trapezoids_over_the_width():
    draw = random.Random(0)
    for _ in range(200):
        xs = sorted(draw.sample(range(100), draw.randint(2, 8)))
        points = [(x, draw.random()) for x in xs]
        ys = [y for _, y in points]
        wanted = np.trapezoid(ys, xs) / (xs[-1] - xs[0])
        assert area(draw.sample(points, len(points))) == pytest.approx(wanted, abs=1e-12)
        end = xs[-1] + draw.randint(0, 50)
        held = np.trapezoid([*ys, ys[-1]], [*xs, end]) / (end - xs[0])
        assert area(points, end) == pytest.approx(held, abs=1e-12)
        assert area(points, xs[0]) == area(points)  # an end before the last point cuts nothing off


def test_a_model_that_is_done_sooner_does_not_have_the_smaller_area():
    slow = [(8, 0.1), (16, 0.5), (32, 0.95), (48, 0.98)]
    quick = [(8, 0.1), (15, 0.98)]  # never below the slow one, and thinks no longer than it needs to
    assert area(quick) < area(slow)  # over its own width alone it would
    assert area(quick, 48) > area(slow, 48)


def test_points_that_used_equally_many_count_as_their_mean():
    assert area([(0, 0.0), (10, 0.4), (10, 0.6)]) == area([(0, 0.0), (10, 0.5)]) == 0.25


@pytest.mark.parametrize("points", [[], [(5, 0.3)], [(5, 0.3), (5, 0.9)]])
def test_without_width_there_is_no_area(points):
    assert area(points) is None and area(points, 5) is None


def test_the_interval_is_where_the_score_is_so_many_errors_off():
    # Wilson's ends are the shares q whose own standard error reaches just as far as the score.
    for right, n in ((9, 10), (1, 10), (100, 200), (3, 7)):
        p = right / n
        low, high = interval(p, None, n)
        assert 0 <= low < p < high <= 1
        for q in (low, high):
            assert abs(p - q) == pytest.approx(Z * math.sqrt(q * (1 - q) / n), rel=1e-9)


def test_the_interval_goes_by_the_standard_error_where_there_is_one():
    p, n = 0.3, 50
    assert interval(p, math.sqrt(p * (1 - p) / n), 9) == pytest.approx(interval(p, None, n))


def test_all_right_is_not_certain():
    low, high = interval(1.0, 0.0, 200)
    assert low == pytest.approx(200 / (200 + Z**2)) and high == pytest.approx(1.0)
    assert interval(0.0, 0.0, 200) == pytest.approx((1 - high, 1 - low))
    assert interval(1.0, 0.0, None) is None and interval(0.5, None, None) is None


def test_tokens_to_a_score():
    points = [(16, 1.0), (4, 0.2), (8, 0.6)]
    assert tokens_to(points, 0.8) == pytest.approx(12) and tokens_to(points, 0.1) == 4 and tokens_to(points, 1.0) == 16
    assert tokens_to(points[1:], 0.9) is None and tokens_to([], 0.5) is None
