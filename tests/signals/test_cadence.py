"""When something is due, in steps or by the budget, and which steps are read in between."""

import pytest

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES
from apportion.plans.recipe import parse_recipe
from apportion.signals._cadence import Cadence, reads_within
from tests.training.runs import TINY


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


def simulated(refresh, reads, steps, lengths=None):
    """Steps before which it was due, and steps that were read, of a run whose steps spend these lengths."""
    lengths = lengths or [1.0] * steps
    cadence, due, read, spent = Cadence(refresh, reads), [], [], 0.0
    for step, length in enumerate(lengths):
        if cadence.due(step, spent / sum(lengths)):
            cadence.begin()
            due.append(step)
        spent += length
        if due and cadence.reads(spent / sum(lengths)):
            read.append(step)
    return due, read


@pytest.mark.parametrize("reads", [None, 1, 3, 4, 50])
@pytest.mark.parametrize("refresh", [1, 2, 7, 10])
def test_steps_are_due_by_remainder_and_read_by_age(refresh, reads):
    due, read = simulated(refresh, reads, 61)
    assert due == [step for step in range(1, 61) if (step - 1) % refresh == 0]
    assert read == [step for step in range(1, 61) if (step - 1) % refresh in read_ages(refresh, reads)]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 1.0])
def test_a_share_is_due_once_in_every_multiple_of_it_whatever_the_steps_spend(share):
    lengths = [1.0 + (step * 7 % 5) for step in range(400)]
    due, _ = simulated(share, None, 400, lengths)
    ends = [sum(lengths[:step]) / sum(lengths) for step in range(400)]
    multiples = {int(end / share + 1e-9) for end in ends[1:]}
    assert len(due) == len(multiples) and due[0] == 1
    assert [int(ends[step] / share + 1e-9) for step in due] == sorted(multiples)


def test_reads_of_a_share_are_evenly_spaced_between_two_directions():
    due, read = simulated(0.25, 6, 402)
    assert due == [1, 101, 201, 302]
    assert read[6:12] == [115, 129, 143, 158, 172, 186]
    assert read[12:] == [215, 229, 244, 258, 272, 287, 316, 330, 344, 359, 373, 387]


def test_a_share_of_less_than_a_step_is_due_and_read_before_every_step():
    every = list(range(1, 40))
    assert simulated(0.001, 4, 40) == (every, every)


@pytest.mark.parametrize("refresh", [1, 7, 60, 0.0003, 0.001, 0.0025, 0.01, 0.07, 0.3, 1.0])
@pytest.mark.parametrize("reads", [None, 1, 4])
def test_what_is_expected_of_a_run_is_what_it_does(refresh, reads):
    due, read = simulated(refresh, reads, 1000)
    times, steps = Cadence(refresh, reads).expected(1000)
    assert times == pytest.approx(len(due), abs=1 if isinstance(refresh, float) else 0)
    assert steps == pytest.approx(len(read), rel=0.05)


@pytest.mark.parametrize("refresh", [7, 0.05])
@pytest.mark.parametrize("steps", [5, 40, 100, 400, 5000])
@pytest.mark.parametrize("ahead", [1, 9])
def test_steps_right_after_are_read_as_many_as_are_told(refresh, steps, ahead):
    cadence, due, read = Cadence(refresh), [], []
    for step in range(steps):
        if cadence.due(step, step / steps):
            cadence.begin(ahead)
            due.append(step)
        if due and cadence.reads((step + 1) / steps):
            read.append(step)
    assert read == sorted({step + k for step in due for k in range(ahead) if step + k < steps})
    times, reads = Cadence(refresh).expected(steps, ahead)
    assert times == pytest.approx(len(due), abs=1) and reads == pytest.approx(len(read), abs=ahead)


def test_it_is_counted_on_from_where_it_was_saved():
    for refresh in (3, 0.07):
        whole, cut = Cadence(refresh, 2), None
        for step in range(50):
            if step == 20:
                cut = Cadence(refresh, 2)
                cut.load_state_dict(whole.state_dict())
            found = []
            for cadence in filter(None, (whole, cut)):
                due = cadence.due(step, step / 50)
                if due:
                    cadence.begin()
                found.append((due, cadence.reads((step + 1) / 50)))
            assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("written", "meant"), [(60, 60), ("60", 60), ("1%", 0.01), (0.01, 0.01), ("100%", 1.0), (1, 1), ("0.5", 0.5)]
)
def test_a_refresh_is_steps_or_a_share(written, meant):
    got = MIXTURES.build({"type": "adapt", "refresh": written}).refresh
    assert got == pytest.approx(meant) and isinstance(got, type(meant))
    again = parse_recipe({**TINY, "mixture": {"type": "adapt", "refresh": got}}).mixture["refresh"]
    assert again == got and isinstance(again, type(got))


@pytest.mark.parametrize("written", [0, -3, 1.5, "0%", "101%", "-1%", "often", True, None, [1], float("nan"), "", "%"])
def test_neither_ends_in_a_sentence(written):
    with pytest.raises(ApportionError, match=r"'mixture.refresh'.*optimizer steps, such as 60, or a share of the bu"):
        MIXTURES.build({"type": "adapt", "refresh": written})
