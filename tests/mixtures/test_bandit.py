"""The bandit: the paper's algorithm line by line, its limits, and what a run tells it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.mixtures import Bandit, Feedback, TaskSizes
from apportion.mixtures.bandit import exp3, exploration
from apportion.signals.losses import example_nll
from apportion.signals.train_losses import TrainLosses
from apportion.tasks.validation import batched
from tests.references import odm
from tests.training.runs import history, ledger, run
from tests.training.units import make_bench, random_tasks, small_model


def tasks_of(count):
    ones = torch.ones(count, dtype=torch.float64)
    return TaskSizes(tuple(map(str, range(count))), 9 * ones, 30 * ones, ones)


def fed(steps, count):
    losses = torch.full((len(steps), count), torch.nan, dtype=torch.float64)
    for row, step in zip(losses, steps, strict=True):
        for arm, loss in step.items():
            row[arm] = loss
    return [Feedback(0.5, train_losses=row) for row in losses]


@given(
    st.integers(2, 6).flatmap(lambda n: st.lists(st.dictionaries(st.integers(0, n - 1), st.floats(0, 9)), max_size=40))
)
@settings(max_examples=50, deadline=None)
def test_it_is_the_papers_algorithm(steps):
    count, mixture = 6, Bandit()
    state = mixture.init(tasks_of(count))
    found = [mixture.proportions(state).tolist()]
    for each in fed(steps, count):
        state = mixture.update(state, each)
        found.append(mixture.proportions(state).tolist())
    for mine, theirs in zip(found, odm.shares(steps, count), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)


def test_it_explores_all_alike_at_first_and_less_and_less_later():
    shares = [exploration(20, turn) for turn in range(200)]
    assert shares[:60] == [1 / 20] * 60 and shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(math.sqrt(math.log(20) / (20 * 199)))
    p = exp3(torch.tensor([0.0, 50.0, 1.0], dtype=torch.float64), 10_000)
    assert float(p.min()) >= exploration(3, 10_000) * (1 - 1e-12)


def test_the_task_that_loses_most_gets_most_and_one_that_is_not_drawn_keeps_its_reward():
    mixture = Bandit()
    state = mixture.init(tasks_of(3))
    for each in fed([{0: 1.0, 1: 3.0, 2: 2.0}] * 40, 3):
        state = mixture.update(state, each)
    p = mixture.proportions(state)
    assert p[1] > p[2] > p[0]
    (only,) = fed([{0: 1.0}], 3)
    after = mixture.update(state, only)
    assert torch.equal(after["rewards"][1:], state["rewards"][1:]) and after["rewards"][0] != state["rewards"][0]


def test_training_losses_are_those_of_the_forward_that_training_makes():
    tasks = random_tasks()
    model = small_model()
    signal = TrainLosses().attach(make_bench(tasks, model))
    drawn = [(0, tasks.tasks[0].train, 1), (0, tasks.tasks[0].train, 4), (2, tasks.tasks[2].train, 3)]
    halves = [batched(drawn[:2], 8, 0)[0], batched(drawn[2:], 8, 0)[0]]
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    sums, counts = [0.0] * 3, [0.0] * 3
    for batch in halves:
        with signal.during(model, batch, 0.1):
            nll, tokens = example_nll(model, batch)
        for task, loss, count in zip(batch.tasks.tolist(), nll.tolist(), tokens.tolist(), strict=True):
            sums[task] += loss
            counts[task] += count
    handle.remove()
    told = signal.after_step().train_losses
    assert len(calls) == 2 and math.isnan(told[1])
    assert [told[0], told[2]] == pytest.approx([sums[0] / counts[0], sums[2] / counts[2]], rel=1e-6)
    assert signal.after_step().train_losses.isnan().all()  # the next step begins with nothing


def test_a_run_costs_what_a_uniform_one_does_and_ends_elsewhere(tmp_path):
    few = ("tasks.names=[copy, reverse, sort]", "budget=1200")
    plain, learnt = run(tmp_path / "plain", *few), run(tmp_path / "learnt", *few, "mixture=bandit")
    for account in ("meta", "proxy"):
        assert ledger(learnt)["accounts"][account]["flops"] == 0
    shares = [history(done)[-1]["mixture"].values() for done in (plain, learnt)]
    assert max(shares[0]) - min(shares[0]) < 1e-12 and max(shares[1]) - min(shares[1]) > 1e-3
