"""Which steps are read between two directions."""

import pytest

from apportion.signals.in_run_alignment import reads_within


def read_ages(refresh, reads):
    return {age for age in range(refresh) if reads_within(age + 1, refresh, reads) > reads_within(age, refresh, reads)}


@pytest.mark.parametrize(("refresh", "reads", "ages"), [(50, 4, {10, 20, 30, 40}), (5, 1, {2}), (4, 9, {0, 1, 2, 3})])
def test_reads_are_spread_between_two_directions(refresh, reads, ages):
    assert read_ages(refresh, reads) == ages


@pytest.mark.parametrize("refresh", [1, 2, 3, 7, 12, 60])
@pytest.mark.parametrize("reads", [None, 1, 2, 3, 5, 6, 7, 11, 12, 13, 100])
def test_reads_by_arithmetic_are_those_counted_one_by_one(refresh, reads):
    every = set(range(refresh))
    literal = every if reads is None else {(i + 1) * refresh // (reads + 1) for i in range(reads)}
    assert read_ages(refresh, reads) == literal
    assert [reads_within(n, refresh, reads) for n in range(refresh + 1)] == [
        sum(age < n for age in literal) for n in range(refresh + 1)
    ]
