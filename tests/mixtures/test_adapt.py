import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Feedback, TaskSizes
from apportion.mixtures.adapt import logit_gradient, reducible

ONES = torch.ones(4, dtype=torch.float64)
TASKS = TaskSizes(("a", "b", "c", "d"), ONES, ONES)
rows = st.lists(st.floats(-3, 3, allow_nan=False), min_size=4, max_size=4)


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


def run(alignments, **settings_):
    mixture = MIXTURES.build({"type": "adapt", **settings_})
    state = mixture.init(TASKS)
    for alignment in alignments:
        state = mixture.update(state, Feedback(0.5, alignment=alignment))
    return mixture.proportions(state)


def n_eff(p):
    return float(torch.exp(-(p * p.log()).sum()))


@given(logits=rows, slope=rows, entropy=st.sampled_from([0.0, 1e-3, 0.5]))
@settings(max_examples=50, deadline=None)
def test_logit_gradient_is_autograds(logits, slope, entropy):
    # J is linear in p to first order: dJ/dp_i = -slope_i, and s_i = p_i * slope_i is what task i's draws account for.
    w, slope = vector(logits).requires_grad_(), vector(slope)
    p = torch.softmax(w, 0)
    literal = -(slope * p).sum() - entropy * -(p * p.log()).sum()
    literal.backward()
    p = p.detach()
    assert torch.allclose(logit_gradient(p * slope, p, entropy), w.grad, atol=1e-12)
    assert abs(float(logit_gradient(p * slope, p, entropy).sum())) < 1e-12


def test_it_follows_the_task_that_helps_and_keeps_the_floor():
    p = run([vector([1.0, 0.0, 0.0, -1.0])] * 400, entropy=0.0, memory=1.0, floor=0.2)
    assert p.argmax() == 0
    assert float(p.min()) == pytest.approx(0.2 / 4, rel=0.02)
    assert float(run([vector([1.0, 0.0, 0.0, -1.0])] * 400, entropy=0.0, memory=1.0, floor=0.0).min()) < 0.01


def test_it_forgets_what_no_longer_holds():
    early, late = vector([1.0, 0.0, 0.0, -1.0]), vector([-1.0, 0.0, 0.0, 1.0])
    p = run([early] * 100 + [late] * 200, entropy=0.0)
    assert (p.argmax(), p.argmin()) == (3, 0)


def test_equal_alignment_leaves_the_mixture_uniform():
    assert torch.allclose(run([vector([0.3, 0.3, 0.3, 0.3])] * 20), ONES / 4)


def test_entropy_keeps_the_mixture_spread():
    pull = [vector([0.02, 0.01, 0.0, -0.01])] * 300
    spread, narrow = (run(pull, entropy=bonus, floor=0.0, memory=1.0) for bonus in (0.5, 0.0))
    assert n_eff(spread) > 2 * n_eff(narrow)


def test_step_does_not_depend_on_the_alignments_scale():
    # Its running scale is divided out, so the training learning rate inside it needs no tuning of its own.
    small, large = (run([scale * vector([1.0, 0.5, 0.0, -1.0])] * 30, entropy=0.0) for scale in (1e-2, 1.0))
    assert torch.allclose(small, large, atol=1e-12)


@pytest.mark.parametrize(
    "setting", [{"floor": 1.0}, {"memory": 1.1}, {"tau": 0}, {"entropy": -1}, {"refresh": 0}, {"estimator": "inrun"}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ApportionError, match=f"mixture.{next(iter(setting))}"):
        MIXTURES.build({"type": "adapt", **setting})


def curves(rows, **settings_):
    mixture = MIXTURES.build({"type": "adapt", **settings_})
    state = mixture.init(TASKS)
    for k, row in enumerate(rows):
        state = mixture.update(state, Feedback(k / 20, losses=vector(row)))
    return mixture, state


def test_share_follows_what_a_curve_can_still_lose():
    # a falls, b is learnt, c cannot be learnt, d was learnt and is being forgotten.
    rows = [[3 - 0.1 * k, 0.01, 2.5, 0.2 if k < 6 else 0.2 + 0.2 * (k - 5)] for k in range(12)]
    mixture, state = curves(rows)
    p = mixture.proportions(state)
    assert min(p[0], p[3]) > 3 * max(p[1], p[2])
    floor = mixture.irreducible(state)
    assert float(floor[2]) == pytest.approx(2.5)
    assert float(floor[0]) < 1.5


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


def test_no_prior_leaves_the_curves_out():
    rows = [[3 - 0.1 * k, 0.01, 2.5, 1.0] for k in range(12)]
    mixture, state = curves(rows, prior=0.0)
    assert torch.allclose(mixture.proportions(state), ONES / 4)


def test_losses_that_are_not_finite_are_refused():
    mixture, state = curves([[1.0, 1.0, 1.0, 1.0]])
    with pytest.raises(ApportionError, match="diverged"):
        mixture.update(state, Feedback(0.5, losses=vector([1.0, float("nan"), 1.0, 1.0])))


@pytest.mark.parametrize(("refresh", "reads", "ages"), [(50, 4, {10, 20, 30, 40}), (5, 1, {2}), (4, 9, {0, 1, 2, 3})])
def test_reads_are_spread_between_two_directions(refresh, reads, ages):
    mixture = MIXTURES.build({"type": "adapt", "refresh": refresh, "reads": reads})
    assert {age for age in range(refresh) if mixture.reads_at(age)} == ages
