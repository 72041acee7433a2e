"""Roll-outs within a budget: none is begun that might not fit, and what is drawn follows the mixture."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from apportion.budget import Budget, Ledger
from apportion.budget.prices import Work
from apportion.models.flops import ModelFlops
from apportion.thinking.tags import ThinkingTags
from apportion.training.rl.rolling import Roller
from apportion.training.rl.rollouts import Rollouts
from apportion.training.rl.spec import RlSpec
from apportion.training.rl.traces import Problem
from apportion.training.sampler import TaskSampler
from tests.training.rl.made import model

WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqr", "<", ">", "[", "]"]
TAGS = ThinkingTags(open="<", close=">", wait="a")


@pytest.fixture(scope="module")
def net():
    return model().eval()


def rollouts(net, budget, *, seed=0, tasks=(3, 2), p=(0.75, 0.25), most=None, **settings):
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    spec = RlSpec(start="", **{"budgets": [1, 3], "rollouts": 2, "summaries": 2, "prompts": 1, "answer": 2} | settings)
    roller = Roller(tokenizer, ModelFlops.of(net), TAGS, TAGS.ids(tokenizer), spec)
    made = [
        [Problem(f"t{task}", {"prompt": ""}, (*range(2, 3 + task + i), 20), ("a",)) for i in range(count)]
        for task, count in enumerate(tasks)
    ]
    sampler = TaskSampler(list(tasks), [np.ones(count, np.int64) for count in tasks], seed=seed, max_epochs=most)
    return Rollouts(roller, made, made[0][:1], sampler=sampler, p=np.array(p), ledger=Ledger(budget), seed=seed)


def spend(rolling, net):
    """Make steps until none fits, charging rows as the trainer does; return how many, and what is left."""
    steps, ledger = 0, rolling._ledger
    while rows := rolling.roll(net, steps):
        steps += 1
        tokens = sum(map(len, rows))
        price = rolling.roller.prices.train(Work(tokens, sum(len(row) ** 2 for row in rows)))
        ledger.charge("train", supervised=0, processed=tokens, padded=tokens, flops=price)
        assert ledger.used <= ledger.budget.limit
    return steps, ledger.remaining


def test_no_budget_is_overspent(net):
    rng, found = np.random.default_rng(1), []
    step = rollouts(net, Budget("generated", 10)).step_price
    for number in range(100):
        tokens = int(rng.integers(step.generated, 4 * step.generated))
        rolling = rollouts(net, Budget("generated", tokens), seed=number)
        steps, left = spend(rolling, net)
        assert steps >= 1 and left < step.generated
        found.append(steps)
        flops = float(rng.uniform(1.0, 3.0)) * (step.generate + step.train) + rolling.measure_price.generate
        rolling = rollouts(net, Budget("flops", flops), seed=number)
        steps, left = spend(rolling, net)
        assert steps >= 1
        # The measurement that closes the run is still paid.
        assert rolling.measure_price.generate <= left
    assert len(set(found)) > 2


def test_less_than_a_step_begins_none(net):
    step = rollouts(net, Budget("generated", 10)).step_price
    assert not rollouts(net, Budget("generated", step.generated - 1)).affords()
    assert rollouts(net, Budget("generated", step.generated)).affords()


def test_tasks_are_drawn_by_the_mixture(net):
    rolling = rollouts(net, Budget("generated", 10**6), prompts=4)
    drawn = []
    for step in range(4):
        rolling.roll(net, step)
        drawn += [trace.problem.task for trace in rolling.rolled.traces[::2]]
    assert drawn.count("t0") == 12 and drawn.count("t1") == 4


def test_it_ends_where_every_problem_was_seen_as_often_as_it_may_be(net):
    rolling = rollouts(net, Budget("generated", 10**6), most=1, prompts=2)
    steps, left = spend(rolling, net)
    assert steps == 3 and left > 0
    assert rolling.sampler.drawn_examples.tolist() == [3, 2]


def test_a_step_is_the_same_whenever_it_is_made(net):
    first, second = (rollouts(net, Budget("generated", 10**6)) for _ in range(2))
    first.roll(net, 0)
    second.roll(net, 0)
    second.measure(net)
    again = [[len(row), row.ids.tolist(), row.advantages.tolist()] for row in second.roll(net, 1)]
    assert [[len(row), row.ids.tolist(), row.advantages.tolist()] for row in first.roll(net, 1)] == again
    assert [trace.thinking for trace in first.measure(net)] == [trace.thinking for trace in second.measure(net)]
