"""The paper's plain method by keys alone: each logit where the literal loop takes it, in sums and over a small run."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Feedback, TaskSizes
from apportion.objectives import Worst
from apportion.signals.losses import example_losses, example_nll
from tests.references import adapt_paper as literal
from tests.tiny import norms_in_double
from tests.training.test_mixture_runner import LR, Training

PLAIN = {"type": "adapt", "prior": 0, "memory": 1, "floor": 0}
ONES = torch.ones(4, dtype=torch.float64)
TASKS = TaskSizes(("a", "b", "c", "d"), ONES, ONES, ONES)
SIZES = {"plain": 0.7, "adam": 0.05}


@pytest.mark.parametrize("step", SIZES)
def test_logits_go_where_the_literal_loop_takes_them(step):
    """A world whose losses are a function of theta in closed form, so that nothing but the logits is at stake."""
    torch.manual_seed(0)
    theta = [torch.randn(3, dtype=torch.float64, requires_grad=True)]
    wanted = torch.randn(4, 3, dtype=torch.float64)
    tau, bonus, eta = 0.3, 0.01, 0.2

    def losses(at):
        return ((wanted - at[0]) ** 2).sum(1)

    mixture = MIXTURES.build({**PLAIN, "step": step, "learning_rate": SIZES[step], "entropy": bonus})
    state, seen = mixture.init(TASKS), []
    w = torch.zeros(4, dtype=torch.float64)
    for turn in range(6):
        p = mixture.proportions(state)
        assert torch.allclose(p, torch.softmax(w, 0), atol=1e-12)
        seen.append(literal.gradient(w, theta, losses, losses, lambda g: [eta * x for x in g], tau, bonus))
        # What an exact estimator tells: p_i eta <g_i, u>, u the gradient of J after the step.
        slopes = torch.stack([torch.autograd.grad(losses(theta)[i], theta)[0] for i in range(4)])
        moved = (theta[0] - eta * (p @ slopes)).detach().requires_grad_()
        (u,) = torch.autograd.grad(literal.objective(losses([moved]), tau), moved)
        state = mixture.update(
            state, Feedback(turn / 6, target_losses=losses(theta).detach(), alignment=p * eta * (slopes @ u))
        )
        w = torch.tensor(literal.STEPS[step](torch.zeros(4), seen, SIZES[step]), dtype=torch.float64)
        assert torch.allclose(state["logits"], w, atol=1e-12)
    assert float(w.abs().max()) > 0.05


def losses_of(training, batch, of, count):
    """Of a list of parameters: each task's or target's loss on a batch, by the mean of examples or of tokens."""
    names = [name for name, _ in training.model.named_parameters()]

    def losses(theta):
        at = dict(zip(names, theta, strict=True))
        if of == "examples":
            each = example_losses(training.model, batch, at)
            return torch.stack([each[batch.tasks == task].mean() for task in range(count)])
        sums, tokens = example_nll(training.model, batch, at)
        return torch.stack([sums[batch.tasks == j].sum() / tokens[batch.tasks == j].sum() for j in range(count)])

    return losses


@pytest.mark.parametrize("estimator", ["forward", "unrolled"])
@pytest.mark.parametrize("step", SIZES)
def test_a_small_run_is_the_literal_loop(step, estimator):
    settings = {**PLAIN, "step": step, "learning_rate": SIZES[step], "entropy": 1e-3, "estimator": estimator}
    mixture = MIXTURES.build({**settings, "refresh": 1, "examples_per_task": 2})
    w, seen = torch.zeros(3, dtype=torch.float64), []
    # Math attention: the others know no second derivative.
    with norms_in_double(), sdpa_kernel(SDPBackend.MATH):
        training = Training(mixture, Worst(tau=0.3), double=True).steps(1)
        for turn in range(4):
            ahead = training.picked(training.bench.look_ahead, 2, turn)
            validation = training.picked(training.bench.targets.steer, 2, turn)
            theta = list(training.model.parameters())
            tasks, targets = (
                losses_of(training, batch, of, 3) for batch, of in ((ahead, "examples"), (validation, "tokens"))
            )
            seen.append(literal.gradient(w, theta, tasks, targets, lambda g: [LR * x for x in g], 0.3, 1e-3))
            training.steps(1)
            w = torch.tensor(literal.STEPS[step](torch.zeros(3), seen, SIZES[step]), dtype=torch.float64)
            assert torch.allclose(training.runner.state["logits"], w, rtol=1e-7, atol=1e-12)
            assert torch.allclose(training.runner.p, torch.softmax(w, 0), rtol=1e-7)
    assert float(w.abs().max()) > 1e-4


@pytest.mark.parametrize("step", ["plain", "adam", "scaled"])
def test_a_step_leaves_the_state_it_was_given_alone(step):
    mixture = MIXTURES.build({**PLAIN, "step": step})
    state = mixture.init(TASKS)
    before = {key: value.clone() for key, value in state.items()}
    pull = Feedback(0.5, alignment=torch.tensor([1.0, 0.0, 0.0, -1.0]))
    moved = mixture.update(state, pull)
    assert all(torch.equal(state[key], value) for key, value in before.items()) and set(moved) == set(state)
    assert not torch.equal(moved["logits"], state["logits"])


def test_an_unknown_step_is_refused():
    with pytest.raises(ApportionError, match=r"'mixture\.step' is 'sgd'"):
        MIXTURES.build({**PLAIN, "step": "sgd"})
