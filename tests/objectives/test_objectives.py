"""Each objective is its formula, says what its gradient is, and counts importance as so many copies of a target."""

import math

import pytest
import torch

from apportion import objectives
from apportion._errors import ApportionError
from apportion.objectives import OBJECTIVES, BoundObjective, Objective
from apportion.objectives.curves import finite_losses, reducible


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


ALIKE = torch.ones(4, dtype=torch.float64)
V = vector([0.4, 2.0, 1.1, 0.9])


def after(objective, rows, importance=ALIKE):
    state = objective.init(importance)
    for k, row in enumerate(rows):
        state = objective.update(state, vector(row), k / 20)
    return state


def test_mean_and_worst_are_their_formulas():
    w = vector([1.0, 3.0, 2.0, 1.0])
    plain = sum(a * b for a, b in zip(w.tolist(), V.tolist(), strict=True)) / 7
    assert float(objectives.Mean().at(objectives.Mean().init(w))(V)) == pytest.approx(plain)
    total = sum(a * math.exp(b / 0.3) for a, b in zip(w.tolist(), V.tolist(), strict=True)) / 7
    assert float(objectives.Worst(tau=0.3).at(objectives.Worst().init(w))(V)) == pytest.approx(0.3 * math.log(total))


def test_tau_leads_from_the_worst_target_to_the_mean():
    state = objectives.Worst().init(ALIKE)
    assert float(objectives.Worst(tau=1e-3).value(state, V)) == pytest.approx(2.0, abs=2e-3)
    assert float(objectives.Worst(tau=1e6).value(state, V)) == pytest.approx(float(V.mean()), abs=1e-5)
    assert float(objectives.Worst(tau=0.3).value(state, ALIKE * 1.5)) == pytest.approx(1.5)


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("losses", [V, V.float()])
def test_the_emphasis_is_the_gradient_by_autograd(name, losses):
    objective = OBJECTIVES.build(name)
    state = after(objective, [[3.0, 2.0, 2.5, 1.0], [2.5, 2.0, 2.4, 1.0], [2.0, 2.0, 2.3, 1.0]], vector([1, 2, 1, 0.5]))
    by_autograd = torch.func.grad(objective.at(state))(losses)
    torch.testing.assert_close(objective.emphasis(state, losses), by_autograd)
    torch.testing.assert_close(Objective.emphasis(objective, state, losses), by_autograd)
    assert objective.emphasis(state, losses).dtype == losses.dtype
    assert float(by_autograd.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_importance_counts_as_copies(name):
    objective = OBJECTIVES.build(name)
    twice = [0, 1, 1, 2, 3]
    rows = [[3.0, 2.0, 2.5, 1.0], [2.5, 2.0, 2.4, 1.0], [2.0, 2.0, 2.3, 1.0]]
    once = objective.at(after(objective, rows, vector([1.0, 2.0, 1.0, 1.0])))
    copied = objective.at(after(objective, [[row[i] for i in twice] for row in rows], torch.ones(5).double()))
    assert float(once(V)) == pytest.approx(float(copied(V[twice])))
    assert (len(once), len(copied)) == (4, 5)


def test_reducible_takes_off_what_a_curve_will_keep():
    # a falls, b is learnt, c cannot be learnt, d was learnt and is being forgotten.
    rows = [[3 - 0.1 * k, 0.01, 2.5, 0.2 if k < 6 else 0.2 + 0.2 * (k - 5)] for k in range(12)]
    objective = objectives.Reducible(tau=0.5)
    state = after(objective, rows)
    floor = objective.irreducible(state)
    assert float(floor[2]) == pytest.approx(2.5) and float(floor[0]) < 1.5
    now = vector(rows[-1])
    assert float(objective.value(state, now)) == pytest.approx(
        float(objectives.Worst(tau=0.5).value(state, now - floor))
    )
    fresh = objective.init(ALIKE)
    assert float(objective.value(fresh, V)) == pytest.approx(float(objectives.Worst(tau=0.5).value(fresh, V)))


def test_state_is_never_moved_in_place():
    objective = objectives.Reducible()
    before = objective.init(ALIKE)
    kept = {key: value.clone() for key, value in before.items()}
    objective.update(before, V, 0.1)
    assert all(torch.equal(before[key], kept[key]) for key in kept)


def test_one_of_ones_own_gives_its_value_alone():
    class Square(Objective):
        def value(self, state, losses):
            return (state["importance"] * losses**2).sum()

    bound = Square().at(Square().init(ALIKE))
    assert isinstance(bound, BoundObjective)
    torch.testing.assert_close(bound.emphasis(V), 2 * V)


def test_reducible_is_its_formula():
    losses = torch.rand((9, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    at = torch.linspace(0, 0.4, 9, dtype=torch.float64)
    best = vector([0.0, 1.2, 9.0, 9.0])
    got = reducible(losses, at, best, window=5)
    for i in range(4):
        x, y = at[-5:] - at[-5:].mean(), losses[-5:, i]
        slope = float((x * (y - y.mean())).sum() / (x * x).sum())
        now = float(losses[-3:, i].mean())
        assert float(got[i]) == pytest.approx(min(now, max(-slope * 0.6, now - float(best[i]), 0)), abs=1e-12)


def test_losses_that_are_not_finite_are_refused():
    with pytest.raises(ApportionError, match="diverged"):
        finite_losses(vector([1.0, float("nan")]))


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({"type": "wrost"}, r"Unknown objective 'wrost' \(did you mean 'worst'\?\)"),
        ({"type": "worst", "tua": 1}, r"Unknown key 'objective.tua' \(did you mean 'tau'\?\)"),
        ({"type": "worst", "tau": 0}, "'objective.tau' is 0: must be greater than 0"),
        ({"tau": 1}, "'objective' must be a mapping with a 'type'"),
    ],
)
def test_bad_blocks_are_refused(block, sentence):
    with pytest.raises(ApportionError, match=sentence):
        OBJECTIVES.build(block)
