"""Steps from draws: never over the budget, in each unit; what is drawn is used or put back; charged as collated."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.budget import Budget, Ledger
from apportion.budget.allowance import Allowance
from apportion.training.sampler import TaskSampler
from apportion.training.stream import Stream
from tests.training.units import random_tasks

TASKS = random_tasks()
SPLITS = [task.train for task in TASKS]
LONGEST = 12
UNITS = ("supervised", "processed", "flops")
EVEN = np.full(3, 1 / 3)


def step_flops(work):
    """Training, and a quarter more for steering."""
    return 1.25 * train_flops(work)


def train_flops(work):
    return 6.0 * work.tokens + 0.5 * work.pairs


def make(unit="supervised", limit=200, reserve=0.0, *, micro=3, accumulation=2, row_length=None, **sampling):
    ledger = Ledger(Budget(unit, limit))
    sampler = TaskSampler([len(s) for s in SPLITS], [s.supervised for s in SPLITS], seed=1, **sampling)
    stream = Stream(
        TASKS,
        sampler,
        ledger,
        Allowance(ledger, reserve),
        step_flops=step_flops,
        train_flops=train_flops,
        micro_batch=micro,
        accumulation=accumulation,
        pad_id=0,
        row_length=row_length,
    )
    return stream, ledger


def steps_of(stream, p=EVEN, steer=lambda step: None):
    while (step := stream.next_step(p)) is not None:
        yield step
        steer(step)


def batches_of(step):
    return [batch for batch in step.batches if batch is not None and len(batch)]


def drawn(step):
    return [draw for draws in step.draws for draw in draws]


def worth(unit, draw):
    """What an example spends of the budget, counted from its tokens."""
    tokens, labels = SPLITS[draw[0]].example(draw[1])
    if unit == "supervised":
        return int((labels != -100).sum())
    return len(tokens) if unit == "processed" else 1.25 * (6.0 * len(tokens) + 0.5 * len(tokens) ** 2)


LIMITS = {"supervised": st.integers(1, 400), "processed": st.integers(1, 900), "flops": st.floats(10, 9000)}
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([None, LONGEST, 30]))


@pytest.mark.parametrize("unit", UNITS)
@given(data=st.data(), shape=SHAPES)
@settings(max_examples=30, deadline=None)
def test_the_budget_is_spent_to_less_than_one_example_and_never_overshot(unit, data, shape):
    micro, accumulation, row_length = shape
    stream, ledger = make(unit, data.draw(LIMITS[unit]), micro=micro, accumulation=accumulation, row_length=row_length)

    def steer(step):
        """Spend what steering costs, as the runners do after a step."""
        flops = sum(step_flops(batch.work) - train_flops(batch.work) for batch in batches_of(step))
        ledger.charge("meta", supervised=0, processed=0, padded=0, flops=flops)

    used, sizes = [], []
    for step in steps_of(stream, steer=steer):
        assert ledger.used <= ledger.budget.limit
        used += drawn(step)
        sizes.append(step.examples)
    spent = sum(worth(unit, draw) for draw in used)
    assert spent == pytest.approx(ledger.used) and spent <= ledger.budget.limit * (1 + 1e-12)
    assert ledger.budget.limit - spent < max(
        worth(unit, (t, i)) for t, split in enumerate(SPLITS) for i in range(len(split))
    )
    assert all(size == micro * accumulation for size in sizes[:-1])
    assert stream.finished and stream.next_step(EVEN) is None
    assert ledger.used == pytest.approx(spent)


@given(limit=st.integers(1, 400), shape=SHAPES)
@settings(max_examples=30, deadline=None)
def test_what_is_drawn_is_trained_on_or_put_back(limit, shape):
    micro, accumulation, row_length = shape
    stream, ledger = make(limit=limit, micro=micro, accumulation=accumulation, row_length=row_length)
    used = [draw for step in steps_of(stream) for draw in drawn(step)]
    sampler = stream.sampler
    assert sampler.drawn_examples.tolist() == [sum(task == t for task, _ in used) for t in range(3)]
    assert int(sampler.drawn_supervised.sum()) == ledger.spent("train").supervised
    # Nothing is skipped: where the budget holds several epochs, each example comes once in each of them.
    for task, split in enumerate(SPLITS):
        counts = Counter(index for t, index in used if t == task)
        waiting = len(sampler.state_dict()["returned"][task])
        assert max(counts.values(), default=0) - min(counts[i] for i in range(len(split))) <= 1 + waiting


@given(limit=st.integers(60, 400), shape=SHAPES)
@settings(max_examples=30, deadline=None)
def test_batches_hold_the_drawn_examples_and_are_charged_as_they_were_collated(limit, shape):
    micro, accumulation, row_length = shape
    stream, ledger = make(limit=limit, micro=micro, accumulation=accumulation, row_length=row_length)
    sums = Counter()
    for step in steps_of(stream):
        assert len(step.batches) == len(step.draws) == accumulation
        for batch, draws in zip(step.batches, step.draws, strict=True):
            if batch is None:
                assert not draws
                continue
            assert batch.tasks.tolist() == [task for task, _ in draws]
            for k, (task, index) in enumerate(draws):
                tokens, labels = SPLITS[task].example(index)
                mine = (batch.segments == k) & (batch.attention_mask == 1)
                assert batch.input_ids[mine].tolist() == tokens.tolist()
                assert batch.targets[batch.examples == k].tolist() == labels[labels != -100].tolist()
            sums.update(supervised=batch.supervised, processed=batch.processed, padded=batch.padded)
            sums["flops"] += train_flops(batch.work)
        assert sum(len(batch) for batch in batches_of(step)) == step.examples
    spent = ledger.spent("train")
    assert (spent.supervised, spent.processed, spent.padded) == (sums["supervised"], sums["processed"], sums["padded"])
    assert spent.flops == pytest.approx(sums["flops"])
    assert ledger.total_flops == spent.flops


def test_steps_are_cut_into_micro_batches_of_like_lengths():
    stream, _ = make(micro=3, accumulation=4)
    lengths = [[len(SPLITS[t].example(i)[0]) for t, i in draws] for draws in stream.next_step(EVEN).draws]
    assert [len(part) for part in lengths] == [3, 3, 3, 3]
    assert all(max(a) <= min(b) for a, b in pairwise(lengths))
    assert lengths[0] != lengths[-1]


def test_a_trimmed_step_has_its_empty_micro_batches_first_and_ends_the_stream():
    # One token more than the first step takes, plus the two cheapest of what comes next.
    plain, ledger = make(limit=10**6, micro=1, accumulation=4)
    plain.next_step(EVEN)
    first = ledger.used
    following = drawn_in_order(micro=1, accumulation=4, steps=2)[4:]
    two = sum(worth("supervised", draw) for draw in following[:2])
    stream, ledger = make(limit=first + two, micro=1, accumulation=4)
    assert stream.next_step(EVEN).examples == 4
    assert not stream.finished
    last = stream.next_step(EVEN)
    assert last.batches[:2] == [None, None] and last.draws[:2] == [[], []]
    assert [len(batch) for batch in last.batches[2:]] == [1, 1]
    assert last.examples == 2 and sorted(drawn(last)) == sorted(following[:2])
    assert stream.finished and ledger.remaining == 0
    assert stream.next_step(EVEN) is None


def drawn_in_order(*, micro, accumulation, steps):
    """What the sampler of `make` draws, in its own order."""
    sampler = make()[0].sampler
    return [draw for _ in range(steps) for draw in sampler.draw(EVEN, micro * accumulation)]


def test_trimming_keeps_the_order_of_the_draws_and_takes_no_cheaper_one_from_behind():
    for limit in range(1, 40):
        stream, _ = make(limit=limit, micro=6, accumulation=1)
        draws = drawn_in_order(micro=6, accumulation=1, steps=1)
        costs = np.cumsum([worth("supervised", draw) for draw in draws])
        step = stream.next_step(EVEN)
        fitting = draws[: int((costs <= limit).sum())]
        assert (sorted(drawn(step)) if step else []) == sorted(fitting)


def test_a_step_that_spends_the_budget_to_the_last_token_ends_the_stream_with_it():
    stream, ledger = make(limit=10**6)
    stream.next_step(EVEN)
    exact, spent = make(limit=ledger.used)
    assert exact.next_step(EVEN).examples == 6
    assert exact.finished and spent.remaining == 0 and not stream.finished


def test_a_budget_below_the_first_example_ends_at_once_with_nothing_charged():
    stream, ledger = make("processed", 1)
    assert stream.next_step(EVEN) is None
    assert stream.finished and ledger.used == 0
    assert stream.sampler.drawn_examples.sum() == 0


def test_what_the_closing_validation_will_cost_is_left_of_a_budget_in_flops_alone():
    for unit, left in (("flops", 1000), ("processed", 0)):
        stream, ledger = make(unit, 3000, 1000)
        for _ in steps_of(stream):
            pass
        assert left <= ledger.remaining < left + (2000 if unit == "flops" else LONGEST)


def test_what_others_spend_of_a_budget_in_flops_ends_the_stream_sooner():
    stream, ledger = make("flops", 3000)
    assert stream.next_step(EVEN).examples == 6
    ledger.charge("meta", supervised=0, processed=0, padded=0, flops=ledger.remaining)
    assert stream.next_step(EVEN) is None and stream.finished
    stream, ledger = make("supervised", 200)
    stream.next_step(EVEN)
    ledger.charge("meta", supervised=150, processed=150, padded=150, flops=1e9)
    assert stream.next_step(EVEN).examples == 6


@given(row_length=st.integers(LONGEST, 40), shape=st.tuples(st.integers(1, 6), st.integers(1, 4)))
@settings(max_examples=30, deadline=None)
def test_packed_rows_hold_whole_examples_one_after_the_other(row_length, shape):
    micro, accumulation = shape
    stream, _ = make(limit=300, micro=micro, accumulation=accumulation, row_length=row_length)
    assert stream.packs
    for step in steps_of(stream):
        empty = [batch is None or not len(batch) for batch in step.batches]
        assert empty == sorted(empty, reverse=True) and step.batches[-1] is not None
        for batch in batches_of(step):
            assert batch.packed
            real = batch.attention_mask == 1
            for row in range(len(batch.input_ids)):
                held = batch.segments[row][real[row]]
                assert len(held) <= row_length
                # Places count up from 0 within each example, and segments change where they start again.
                places = batch.position_ids[row][real[row]]
                assert (held.diff() != 0).tolist() == (places[1:] == 0).tolist()


def test_packing_changes_neither_draws_nor_what_is_spent_but_the_padding():
    plain, packed = make(limit=300, micro=6), make(limit=300, micro=6, row_length=40)
    taken = [[sorted(drawn(step)) for step in steps_of(stream)] for stream, _ in (plain, packed)]
    assert taken[0] == taken[1]
    ours, theirs = (ledger.spent("train") for _, ledger in (packed, plain))
    assert (ours.supervised, ours.processed) == (theirs.supervised, theirs.processed)
    assert ours.padded < theirs.padded and ours.flops == pytest.approx(theirs.flops)


def test_a_packed_step_of_fewer_rows_than_micro_batches_has_empty_ones_first():
    stream, _ = make(limit=300, micro=1, accumulation=4, row_length=4 * LONGEST)
    step = stream.next_step(EVEN)
    assert step.examples == 4
    assert step.batches[:3] == [None] * 3 and len(step.batches[3]) == 4


def test_a_capped_sampler_that_runs_dry_ends_the_stream():
    stream, ledger = make(limit=10**6, max_epochs=1.0)
    used = [draw for step in steps_of(stream) for draw in drawn(step)]
    assert sorted(used) == [(t, i) for t, split in enumerate(SPLITS) for i in range(len(split))]
    assert ledger.used == sum(int(split.supervised.sum()) for split in SPLITS)


def test_several_ranks_draw_and_charge_the_same_step_and_share_its_micro_batches_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    taken, spent = [], []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        stream, ledger = make(limit=90, micro=2, accumulation=2)
        taken.append(list(steps_of(stream)))
        spent.append(ledger.as_dict())
    assert spent[0] == spent[1] and len(taken[0]) == len(taken[1]) > 1
    for variable in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(variable)
    alone, _ = make(limit=90, micro=2, accumulation=4)
    for ours, theirs, whole in zip(*taken, steps_of(alone), strict=True):
        assert ours.examples == theirs.examples == whole.examples
        assert sorted(drawn(ours) + drawn(theirs)) == sorted(drawn(whole))
        assert ours.batches[-1] is not None and theirs.batches[-1] is not None
