import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Feedback, TaskSizes
from apportion.mixtures.adapt import logit_gradient
from tests.references import logit_gradient as literal

ONES = torch.ones(4, dtype=torch.float64)
TASKS = TaskSizes(("a", "b", "c", "d"), ONES, ONES, ONES)
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


@given(
    logits=rows,
    prior=rows,
    slopes=rows,
    lengths=st.none() | st.lists(st.floats(1, 200), min_size=4, max_size=4),
    floor=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    entropy=st.sampled_from([0.0, 1e-3, 0.5]),
)
@settings(max_examples=200, deadline=None)
def test_logit_gradient_is_autograds(logits, prior, slopes, lengths, floor, entropy):
    w, prior, slopes = vector(logits), vector(prior), vector(slopes)
    lengths = None if lengths is None else vector(lengths)
    p = literal.mixture(w, prior, floor)
    drawn = None if lengths is None else literal.rates(p, lengths)
    # What a step's draws of task i account for is its rate times its slope.
    alignment = (p if drawn is None else drawn) * slopes
    got = logit_gradient(alignment, torch.softmax(w + prior, 0), entropy, floor, drawn)
    assert torch.allclose(got, literal.gradient(w, prior, floor, lengths, slopes, entropy), atol=1e-12)
    assert abs(float(got.sum())) < 1e-12


@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_tasks_of_equal_use_move_nothing(unit, floor):
    """Whatever their lengths and shares: the gradient of a sum that does not depend on the logits is zero."""
    mixture = MIXTURES.build({"type": "adapt", "unit": unit, "floor": floor, "entropy": 0.0, "memory": 1.0})
    state = mixture.init(TaskSizes(TASKS.names, ONES, vector([2.0, 5.0, 40.0, 200.0]), ONES))
    state = {**state, "logits": vector([1.0, -0.5, 0.2, 0.7]), "scale": ONES[0]}
    moved = mixture.update({**state, "updates": torch.tensor(1)}, Feedback(0.5, alignment=0.3 * mixture.rates(state)))
    assert torch.allclose(moved["logits"], state["logits"], atol=1e-12)


def test_the_step_goes_by_the_rates_that_examples_are_drawn_at():
    mixture = MIXTURES.build({"type": "adapt", "unit": "tokens", "floor": 0.2, "memory": 1.0, "prior": 0.5})
    lengths = vector([2.0, 5.0, 40.0, 200.0])
    state = mixture.init(TaskSizes(TASKS.names, 3 * ONES, 3 * lengths, ONES))
    state = mixture.update(state, Feedback(0.1, losses=vector([2.0, 1.0, 3.0, 0.5])))
    slopes, prior = vector([0.3, -0.2, 0.1, 0.7]), 0.5 * (vector([2.0, 1.0, 3.0, 0.5]) + 0.02).log()
    rates = mixture.rates(state)
    assert torch.allclose(rates, literal.rates(mixture.proportions(state), lengths))
    slow = literal.gradient(torch.zeros_like(prior), prior, 0.2, lengths, slopes, mixture.entropy)
    moved = mixture.update(state, Feedback(0.2, alignment=rates * slopes))["logits"]
    assert torch.allclose(moved, -mixture.learning_rate * slow / slow.square().mean().sqrt(), atol=1e-12)


def test_a_share_that_underflows_has_a_gradient_all_the_same():
    got = logit_gradient(vector([0.2, 0.1, 0.0, 0.0]), vector([0.6, 0.4, 0.0, 0.0]), 1e-3)
    assert torch.isfinite(got).all()
    rates = literal.rates(vector([0.6, 0.4, 0.0, 0.0]), vector([1.0, 2.0, 3.0, 4.0]))
    assert torch.isfinite(logit_gradient(rates, vector([0.6, 0.4, 0.0, 0.0]), 1e-3, 0.0, rates)).all()


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
    "setting", [{"floor": 1.0}, {"memory": 1.1}, {"prior": -1}, {"entropy": -1}, {"refresh": 0}, {"estimator": "inrun"}]
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


def test_importance_is_where_the_mixture_starts_and_part_of_its_prior():
    mixture = MIXTURES.build({"type": "adapt", "floor": 0.0})
    important = TaskSizes(TASKS.names, ONES, ONES, vector([1.0, 4.0, 1.0, 2.0]))
    state = mixture.init(important)
    assert mixture.proportions(state).tolist() == pytest.approx([0.125, 0.5, 0.125, 0.25])
    state = mixture.update(state, Feedback(0.1, losses=ONES))
    assert mixture.proportions(state).tolist() == pytest.approx([0.125, 0.5, 0.125, 0.25])


def test_no_prior_leaves_the_curves_out():
    rows = [[3 - 0.1 * k, 0.01, 2.5, 1.0] for k in range(12)]
    mixture, state = curves(rows, prior=0.0)
    assert torch.allclose(mixture.proportions(state), ONES / 4)


def test_losses_that_are_not_finite_are_refused():
    mixture, state = curves([[1.0, 1.0, 1.0, 1.0]])
    with pytest.raises(ApportionError, match="diverged"):
        mixture.update(state, Feedback(0.5, losses=vector([1.0, float("nan"), 1.0, 1.0])))
