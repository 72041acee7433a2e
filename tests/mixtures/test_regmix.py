"""RegMix: what is drawn, what is fitted, what is found in a world of closed form, and what is refused."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.mixtures import Outcome, RegMix, TaskSizes
from apportion.mixtures import _regression as regression
from apportion.mixtures import regmix as place
from apportion.mixtures._regression import fitted, held_out_correlation, ranks, spearman
from apportion.mixtures.regmix import candidates

FOLDER = Path("trials")


def sizes(names="abcde", supervised=None):
    tokens = torch.tensor(supervised or [10.0 * (k + 1) for k in range(len(names))], dtype=torch.float64)
    return TaskSizes(tuple(names), tokens, tokens, torch.ones(len(names), dtype=torch.float64))


def mixtures_of(trials):
    return {name: trial.overrides["mixture"]["shares"] for name, trial in trials.items()}


def ended(trials, loss):
    return {name: Outcome(loss(shares)) for name, shares in mixtures_of(trials).items()}


def test_mixtures_are_those_of_a_literal_loop():
    """Draws of NumPy's own Dirichlet have the same mean and spread at each concentration."""
    prior = np.array([0.5, 0.3, 0.2])
    found = candidates(prior, 40_000, 1.0, np.random.default_rng(0))
    strengths = np.exp(np.linspace(np.log(0.1), np.log(5), 40_000))
    generator = np.random.default_rng(1)
    wanted = np.array([generator.dirichlet(prior * s) for s in strengths])
    for part in (slice(0, 20_000), slice(20_000, None)):
        np.testing.assert_allclose(found[part].mean(0), wanted[part].mean(0), atol=0.01)
        np.testing.assert_allclose(found[part].std(0), wanted[part].std(0), atol=0.01)
    assert found[:20_000].max(1).mean() > found[20_000:].max(1).mean() + 0.05


@given(st.integers(2, 12), st.floats(0.3, 1), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_mixtures_are_distributions_within_the_cap(count, cap, seed):
    p = candidates(np.full(count, 1 / count), 16, cap, np.random.default_rng(seed))
    assert p.shape == (16, count) and p.min() >= 0 and p.max() <= max(cap, 2 / count)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)


def test_a_cap_that_leaves_nothing_is_refused():
    with pytest.raises(ApportionError, match=r"'mixture\.cap' of 0\.06 leaves hardly a mixture of 40 tasks"):
        candidates(np.full(40, 1 / 40), 8, 0.06, np.random.default_rng(0))


def test_trials_are_fixed_mixtures_that_sum_to_one_and_follow_the_names():
    asked = RegMix(trials=9, trial=0.2, unit="tokens").ask(sizes(), FOLDER)
    assert len(asked) == 9 and all(trial.budget == 0.2 for trial in asked.values())
    blocks = [trial.overrides["mixture"] for trial in asked.values()]
    assert all(block["type"] == "fixed" and block["unit"] == "tokens" for block in blocks)
    assert all(abs(sum(block["shares"].values()) - 1) < 1e-12 for block in blocks)
    assert len({tuple(block["shares"].values()) for block in blocks}) == 9
    other = RegMix(trials=9, trial=0.2, unit="tokens").ask(sizes("ebdac"), FOLDER)
    assert mixtures_of(other) == mixtures_of(asked)
    assert mixtures_of(RegMix(trials=9, seed=1).ask(sizes(), FOLDER)) != mixtures_of(asked)
    assert RegMix().ask(sizes("a"), FOLDER) == {}


def test_the_prior_by_sizes_tries_large_tasks_more():
    tried = mixtures_of(RegMix(trials=200, prior="proportional", cap=1).ask(sizes("ab", [300.0, 100.0]), FOLDER))
    assert np.mean([shares["a"] for shares in tried.values()]) == pytest.approx(0.75, abs=0.08)
    start = RegMix(prior="proportional").init(sizes("ab", [300.0, 100.0]))["p"]
    assert start.tolist() == [0.75, 0.25]


def test_a_smaller_model_stands_in_for_the_runs_own_in_the_trials():
    config = {"model_type": "llama", "hidden_size": 8}
    block = {"config": config, "tokenizer": {"train": "character"}}
    asked = RegMix(trials=8, proxy=block).ask(sizes(), FOLDER)
    assert all(trial.overrides["model"]["config"] == config for trial in asked.values())
    assert "model" not in next(iter(RegMix(trials=8).ask(sizes(), FOLDER).values())).overrides


@pytest.mark.parametrize("fit", ["lightgbm", "linear"])
def test_it_finds_the_tasks_that_lower_the_loss(fit, monkeypatch):
    monkeypatch.setattr(place, "SIMULATED", 5_000)
    method, tasks = RegMix(trials=96, fit=fit), sizes()
    outcomes = ended(method.ask(tasks, FOLDER), lambda p: 3 - 2 * p["b"] - p["d"] + 0.5 * p["a"])
    found = method.tell(tasks, outcomes)
    p = found.proportions(found.init(tasks))
    assert float(p.sum()) == pytest.approx(1) and int(p.argmax()) == 1 and p[1] > 0.3
    assert p[3] > p[0]
    (said,) = found.findings()
    correlation = float(said.split("loss ")[1].split(" ")[0])
    assert correlation > (0.8 if fit == "lightgbm" else 0.95) and f"RegMix, {fit}" in said
    assert method.tell(tasks, outcomes) == found  # nothing global decides


def test_what_was_learnt_does_not_hang_on_the_order_of_the_tasks(monkeypatch):
    monkeypatch.setattr(place, "SIMULATED", 2_000)
    method = RegMix(trials=24)
    one, other = sizes(), sizes("ebdac", [50.0, 20.0, 40.0, 10.0, 30.0])

    def loss(p):
        return (p["a"] - 0.4) ** 2 + p["c"]

    found = [method.tell(tasks, ended(method.ask(tasks, FOLDER), loss)) for tasks in (one, other)]
    assert found[0].shares == found[1].shares


def test_the_linear_fit_is_a_literal_ridge():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 30)
    losses = p @ [1.0, 2.0, 3.0, 4.0] + 0.1 * rng.standard_normal(30)

    def ridge(rows, penalty):
        x, y = p[rows] - p[rows].mean(0), losses[rows] - losses[rows].mean()
        slopes = np.linalg.solve(x.T @ x + penalty * np.eye(4), x.T @ y)
        return lambda q: losses[rows].mean() + (q - p[rows].mean(0)) @ slopes

    predict = regression.fit_ridge(p, losses, rng)
    everything = np.arange(30)
    near = [float(np.abs(predict(p) - ridge(everything, penalty)(p)).max()) for penalty in regression.PENALTIES]
    assert min(near) < 1e-9
    assert regression.PENALTIES[int(np.argmin(near))] < 1


def test_each_fit_is_of_what_those_before_leave_and_the_first_of_how_widely_a_mixture_spreads():
    rng = np.random.default_rng(0)
    p, other = rng.dirichlet(np.ones(4), 30), rng.dirichlet(np.ones(4), 5)

    def literal(q):
        return 3 - 0.7 * np.array([sum(share**0.5 for share in row) for row in q])

    def nothing(rows, left, seed):
        assert np.abs(left).max() < 1e-12
        return lambda q: np.ones(len(q))

    predict = fitted((regression.fit_spread, nothing), p, literal(p), rng)
    np.testing.assert_allclose(predict(other), literal(other) + 1, rtol=1e-12)
    assert all(fits[0] is regression.fit_spread for fits in regression.FITS.values())


def test_what_is_held_out_is_not_fitted():
    """No fit is asked of a mixture that it was given, and each is asked of once."""
    rng = np.random.default_rng(0)
    p, losses = rng.dirichlet(np.ones(4), 40), rng.standard_normal(40)
    asked = []

    def by_heart(rows, known, seed):
        def predict(q):
            asked.append(len(q))
            assert not any((row == rows).all(1).any() for row in q)
            return np.zeros(len(q))

        return predict

    assert abs(held_out_correlation([by_heart], p, losses, rng)) < 1
    assert sum(asked) == 40 and len(asked) == 4


def test_noise_has_no_correlation():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 200)
    for fits in regression.FITS.values():
        assert abs(held_out_correlation(fits, p, rng.standard_normal(200), rng)) < 0.3


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.data())
@settings(max_examples=50, deadline=None)
def test_ranks_and_their_correlation_are_the_literal_ones(values, data):
    literal = [sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]
    assert ranks(np.array(values)).tolist() == pytest.approx(literal)
    other = data.draw(st.lists(st.integers(0, 5), min_size=len(values), max_size=len(values)))
    if len(set(values)) > 1 and len(set(other)) > 1:
        theirs = [sum(b < a for b in other) + (sum(b == a for b in other) - 1) / 2 for a in other]
        assert spearman(np.array(values), np.array(other)) == pytest.approx(np.corrcoef(literal, theirs)[0, 1])
    else:
        assert spearman(np.array(values), np.array(other)) == 0


def test_a_missing_lightgbm_is_said_with_the_way_to_it(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ApportionError, match=r"pip install 'apportion\[regmix\]', or set 'mixture\.fit: linear'"):
        RegMix().ask(sizes(), FOLDER)
    assert RegMix(fit="linear").ask(sizes(), FOLDER)


@pytest.mark.parametrize(
    "bad", [{"trials": 4}, {"trial": 0}, {"cap": 0}, {"fit": "forest"}, {"prior": "sizes"}, {"proxy": {"name": None}}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ApportionError):
        RegMix(**bad)
