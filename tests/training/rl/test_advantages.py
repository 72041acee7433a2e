"""BRPO's advantages against nested loops, a table worked by hand, and the gradient of a small decision process."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from apportion.training.rl.advantages import brpo, prior_of
from tests.references.brpo import brpo as literal

BASELINES = ("brpo", "own", "group", "none")


def drawn(rng):
    q, g, s, a = (int(rng.integers(1, high)) for high in (4, 5, 6, 4))
    return rng.random((q, g, s, a)), rng.dirichlet(np.ones(s)), rng.integers(0, s, (q, g))


@pytest.mark.parametrize("baseline", BASELINES)
def test_advantages_are_those_of_nested_loops(baseline):
    rng = np.random.default_rng(3)
    for _ in range(50):
        rewards, prior, ends = drawn(rng)
        expected = literal(rewards.tolist(), prior.tolist(), ends.tolist(), baseline)
        for mine, theirs in zip(brpo(rewards, prior, ends, baseline), expected, strict=True):
            np.testing.assert_allclose(mine, np.array(theirs), atol=1e-12)


def test_a_table_worked_by_hand():
    rewards = np.array([[[[0.0], [0.0], [1.0]], [[1.0], [1.0], [1.0]]]])
    think, _ = brpo(rewards, prior_of("uniform", [8, 16, 32]), np.full((1, 2), 2))
    by_hand = [[Fraction(-1, 3), 0, Fraction(2, 9)], [Fraction(1, 3), Fraction(1, 9), 0]]
    np.testing.assert_allclose(think[0], np.array(by_hand, dtype=np.float64), atol=1e-12)


def test_one_budget_is_the_group_mean_taken_off():
    rewards = np.random.default_rng(0).random((3, 5, 1, 4))
    think, _ = brpo(rewards, np.ones(1), np.zeros((3, 5), int))
    mean = rewards.mean(-1)
    np.testing.assert_allclose(think, mean - mean.mean(1, keepdims=True))


def test_one_budget_and_one_summary_is_grpo_without_the_deviation():
    rewards = np.random.default_rng(1).random((2, 6, 1, 1))
    think, summary = brpo(rewards, np.ones(1), np.zeros((2, 6), int))
    plain = rewards[..., 0, 0] - rewards[..., 0, 0].mean(1, keepdims=True)
    np.testing.assert_allclose(think[..., 0], plain)
    np.testing.assert_allclose(summary[..., 0, 0], plain)


@pytest.mark.parametrize("baseline", ["brpo", "group"])
def test_equal_rewards_teach_nothing(baseline):
    think, summary = brpo(np.ones((2, 3, 4, 2)), prior_of("linear", [1, 2, 3, 4]), np.full((2, 3), 3), baseline)
    # The trace's own past is as good as its future, but not for the first segment, which has none.
    np.testing.assert_allclose(think, 0, atol=1e-12)
    np.testing.assert_allclose(summary, 0, atol=1e-12)


def test_nothing_is_taught_behind_the_end():
    rng = np.random.default_rng(2)
    rewards, ends = rng.random((4, 5, 6, 2)), rng.integers(0, 6, (4, 5))
    think, _ = brpo(rewards, prior_of("uniform", range(1, 7)), ends)
    behind = np.arange(6) > ends[..., None]
    assert behind.any() and (think[behind] == 0).all() and (think[~behind] != 0).all()


def test_the_largest_budget_alone_is_grpo_but_for_the_own_past():
    rng = np.random.default_rng(4)
    rewards, ends = rng.random((3, 4, 3, 2)), np.full((3, 4), 2)
    prior = prior_of("base", [1, 2, 3])
    group, _ = brpo(rewards, prior, ends, "group")
    last = rewards[:, :, 2].mean(-1)
    np.testing.assert_allclose(group, np.repeat((last - last.mean(1, keepdims=True))[..., None], 3, -1))


def test_priors_sum_to_one():
    budgets = [8, 16, 40]
    assert prior_of("base", budgets).tolist() == [0, 0, 1]
    assert prior_of("linear", budgets).tolist() == [0.125, 0.25, 0.625]
    assert prior_of([1, 1, 2], budgets).tolist() == [0.25, 0.25, 0.5]


class Process:
    """Three segments of one binary choice each, prompts of widely different difficulty; a summary is right by chance.

    The chance rises with the right choices so far, the steeper the more ``weigh`` says.
    """

    def __init__(self, rng, prompts, weigh):
        self.hard, self.weigh = rng.normal(0, 2, (prompts, 1, 1)), weigh
        self.logits = rng.normal(0, 1, (prompts, 3))
        self.p = 1 / (1 + np.exp(-self.logits))
        self.prior = prior_of("uniform", [1, 2, 3])

    def chance(self, chosen):
        """Chance of a right summary at each budget, of choices (prompts, group, 3)."""
        return 1 / (1 + np.exp(-(self.weigh * (chosen - 0.5).cumsum(-1) + self.hard)))

    def gradient(self):
        """The exact gradient of the objective by the logits (prompts, 3), by enumeration."""
        total = np.zeros_like(self.p)
        for choices in itertools.product([0.0, 1.0], repeat=3):
            chosen = np.broadcast_to(np.array(choices), self.p.shape)
            weight = np.where(chosen == 1, self.p, 1 - self.p).prod(-1, keepdims=True)
            value = (self.prior * self.chance(chosen[:, None])[:, 0]).sum(-1, keepdims=True)
            total += weight * value * (chosen - self.p)
        return total

    def sampled(self, rng, baseline, group, summaries):
        """One estimate of the gradient (prompts, 3): the mean over a group of roll-outs."""
        chosen = (rng.random((len(self.p), group, 3)) < self.p[:, None]).astype(float)
        chance = self.chance(chosen)
        rewards = (rng.random((*chance.shape, summaries)) < chance[..., None]).astype(float)
        think, _ = brpo(rewards, self.prior, np.full(chosen.shape[:2], 2), baseline)
        return (think * (chosen - self.p[:, None])).mean(1)


def spreads(process, group, draws):
    """Return mean, standard error (prompts, 3) and total variance of the estimates under each baseline."""
    found = {}
    for baseline in BASELINES:
        rng = np.random.default_rng(8)
        samples = np.stack([process.sampled(rng, baseline, group, 4) for _ in range(draws)])
        found[baseline] = samples.mean(0), samples.std(0) / draws**0.5, samples.var(0).sum()
    return found


def test_baselines_scale_the_gradient_by_segment_as_said():
    group, s = 8, np.arange(3)
    process = Process(np.random.default_rng(0), 16, weigh=1)
    exact, found = process.gradient(), spreads(process, group, 1500)
    factors = {"none": np.ones(3), "own": np.ones(3), "group": np.full(3, (group - 1) / group)}
    factors["brpo"] = 1 - (3 - s) / (3 * group)
    for baseline, factor in factors.items():
        mean, error, _ = found[baseline]
        # 48 numbers, so that the largest of them may well be three standard errors off.
        assert np.abs((mean - factor * exact) / error).max() < 4.5, baseline
        np.testing.assert_allclose((mean * exact).sum(0) / (exact**2).sum(0), factor, atol=0.06)
    assert found["brpo"][2] <= 1.02 * found["group"][2]
    assert found["brpo"][2] < 0.2 * found["none"][2]


def test_the_own_past_helps_where_choices_decide_much():
    found = spreads(Process(np.random.default_rng(0), 16, weigh=3), 8, 400)
    assert found["brpo"][2] < 0.92 * found["group"][2]
