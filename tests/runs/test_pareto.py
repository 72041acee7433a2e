"""The front against its definition, pair by pair."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apportion.runs.pareto import front

# Few different numbers, so that ties are many.
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 3.0]) | st.floats(allow_nan=False)
POINTS = st.dictionaries(st.text(max_size=3), st.tuples(NUMBERS, NUMBERS), max_size=12)


def dominates(one, other):
    return one[0] <= other[0] and one[1] <= other[1] and (one[0] < other[0] or one[1] < other[1])


def literal(points):
    return {name for name, pair in points.items() if not any(dominates(other, pair) for other in points.values())}


@given(POINTS)
def test_on_the_front_is_what_nothing_dominates(points):
    found = front(points)
    assert set(found) == literal(points) and len(found) == len(set(found))


@given(POINTS)
def test_along_the_front_cost_rises_and_loss_falls(points):
    steps = [points[name] for name in front(points)]
    assert all(a == b or (a[0] < b[0] and a[1] > b[1]) for a, b in pairwise(steps))


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_of_the_arms_decides_nothing_but_the_order_of_ties(points, random):
    names = list(points)
    random.shuffle(names)
    assert set(front({name: points[name] for name in names})) == set(front(points))


@given(POINTS)
def test_what_is_off_the_front_does_not_move_it(points):
    kept = front(points)
    assert front({name: pair for name, pair in points.items() if name in kept}) == kept


def test_ties_stay_on_together_and_the_cheapest_comes_first():
    points = {"dear": (3.0, 1.0), "twin": (1.0, 2.0), "cheap": (1.0, 2.0), "worse": (1.0, 2.5), "waste": (3.0, 1.5)}
    assert front(points) == ["twin", "cheap", "dear"]
    assert front({}) == []
