"""A text cut in three: nothing lost, nothing empty, and both cuts uniform and independent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.models.tagi.splitting import split_text

# About the 99.99 % quantile of chi-square at 44 degrees of freedom: with one seed in 10,000 a right splitter would fail.
BOUND_44 = 87.0


@given(st.integers(1, 5), st.integers(0, 60), st.integers(0, 2**32))
def test_three_parts_in_order_cover_the_text(least, spare, seed):
    tokens = np.arange(100, 100 + 3 * least + spare)
    parts = split_text(tokens, np.random.default_rng(seed), least)
    assert len(parts) == 3
    assert np.concatenate(parts).tolist() == tokens.tolist()
    assert min(len(part) for part in parts) >= least


def statistic(draw, spare, draws=20_000):
    """Chi-square of the (lower, upper) cuts seen against two independent uniform draws, sorted; 44 degrees at spare 8."""
    seen = np.zeros((spare + 1, spare + 1))
    for _ in range(draws):
        seen[draw()] += 1
    places = spare + 1
    expected = np.triu(np.full((places, places), 2.0), 1) + np.eye(places)
    expected *= draws / places**2
    assert seen[expected == 0].sum() == 0
    return float(((seen - expected)[expected > 0] ** 2 / expected[expected > 0]).sum())


@pytest.mark.parametrize("least", [1, 4])
def test_the_cuts_are_two_independent_uniform_draws(least):
    rng, tokens = np.random.default_rng(0), np.arange(3 * least + 8)

    def draw():
        first, second, _ = split_text(tokens, rng, least)
        return len(first) - least, len(first) + len(second) - 2 * least

    assert statistic(draw, 8) < BOUND_44


def test_the_statistic_would_notice_hint_s_draws():
    """The second point drawn from the first on, as in HINT: also in order, also covering, but not independent."""
    rng = np.random.default_rng(0)

    def draw():
        first = int(rng.integers(0, 9))
        return first, int(rng.integers(first, 9))

    assert statistic(draw, 8) > 10 * BOUND_44


def test_the_parts_are_of_one_length_on_average():
    rng = np.random.default_rng(1)
    lengths = np.array([[len(part) for part in split_text(np.arange(302), rng)] for _ in range(4000)])
    # A part's standard deviation is 71, that of its mean 1.1.
    assert np.abs(lengths.mean(0) - 302 / 3).max() < 5


def test_the_seed_decides():
    tokens = np.arange(50)
    ends = [[len(split_text(tokens, rng)[0]) for _ in range(20)] for rng in map(np.random.default_rng, (3, 3, 4))]
    assert ends[0] == ends[1] != ends[2]


def test_the_shortest_text_has_one_cut():
    assert [part.tolist() for part in split_text(np.array([7, 8, 9]), np.random.default_rng(0))] == [[7], [8], [9]]


@pytest.mark.parametrize(("length", "least"), [(0, 1), (2, 1), (11, 4)])
def test_a_text_too_short_is_refused(length, least):
    with pytest.raises(ApportionError, match=f"A text of {length} tokens.*shorter than {3 * least} tokens"):
        split_text(np.arange(length), np.random.default_rng(0), least)


def test_empty_parts_are_refused():
    with pytest.raises(ApportionError, match="'least' is 0"):
        split_text(np.arange(9), np.random.default_rng(0), 0)
