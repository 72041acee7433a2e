import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Feedback, TaskSizes
from apportion.mixtures.loss import by_loss
from apportion.mixtures.progress import by_progress
from apportion.objectives.curves import slopes


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def run(spec, rows, every=0.02):
    """p after one feedback a row, at every ``every`` of the budget from its start."""
    mixture = MIXTURES.build(spec)
    count = len(rows[0])
    ones = torch.ones(count).double()
    state = mixture.init(TaskSizes(tuple("abcdefgh"[:count]), ones, ones, ones))
    for step, row in enumerate(rows):
        state = mixture.update(state, Feedback(step * every, losses=tensor(*row)))
    return mixture.proportions(state), state


def test_loss_by_hand():
    p = by_loss(tensor(1.0, 2.0), 0.5, 0.1)
    soft = math.exp(4) / (math.exp(2) + math.exp(4))
    assert p.tolist() == pytest.approx([0.9 * (1 - soft) + 0.05, 0.9 * soft + 0.05])


def test_loss_keeps_a_running_mean_that_the_first_measurement_starts():
    rows = [(3.0, 1.0), (1.0, 2.0), (0.5, 0.0)]
    p, state = run("loss", rows)
    mean = [0.7 * (0.7 * a + 0.3 * b) + 0.3 * c for a, b, c in zip(*rows, strict=True)]
    assert state["mean"].tolist() == pytest.approx(mean)
    assert p.tolist() == pytest.approx(by_loss(tensor(*mean), 0.5, 0.1).tolist())
    assert run({"type": "loss", "ema": 0}, rows)[1]["mean"].tolist() == [0.5, 0.0]


def test_loss_at_its_limits():
    assert run({"type": "loss", "gamma": 1}, [(5.0, 0.0)])[0].tolist() == [0.5, 0.5]
    assert run({"type": "loss", "temperature": 1e-6, "gamma": 0}, [(5.0, 4.0)])[0].tolist() == [1.0, 0.0]
    assert run("loss", [(800.0, 1.0, 1.0)])[0].tolist() == pytest.approx([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])


@given(st.integers(3, 24), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_slopes_are_the_least_squares_ones(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, generator=generator, dtype=torch.float64).cumsum(0)
    y = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    design = torch.stack([torch.ones_like(x), x], 1)
    fit = torch.linalg.lstsq(design, y).solution
    variance = ((y - design @ fit) ** 2).sum(0) / (n - 2)
    covariance = torch.linalg.inv(design.T @ design)[1, 1]
    slope, error = slopes(y, x)
    assert torch.allclose(slope, fit[1], atol=1e-8)
    assert torch.allclose(error, (variance * covariance).sqrt(), atol=1e-8)


def test_progress_by_hand():
    # Exact lines: falling by 0.1 and by 0.3 a measurement, and flat; as much as 10 of them left.
    losses = torch.stack([tensor(5 - 0.1 * k, 2 - 0.3 * k, 4.0) for k in range(5)])
    p = by_progress(losses, torch.arange(5).double(), left=10, noise=1e-3, gamma=0.2)
    to_gain = [1.0 + 1e-3, 0.8 + 1e-3, 1e-3]  # the second is capped by the loss that is left, 2 - 1.2
    wanted = [0.8 * g / sum(to_gain) + 0.2 / 3 for g in to_gain]
    assert p.tolist() == pytest.approx(wanted, abs=1e-6)


def test_progress_counts_what_is_left_of_the_budget():
    rows = [(5 - 0.01 * k, 5 - 0.02 * k, 5.0) for k in range(6)]
    p, _ = run("progress", rows)
    left = 1 - 5 * 0.02
    to_gain = [0.01 / 0.02 * left + 1e-3, 0.02 / 0.02 * left + 1e-3, 1e-3]
    assert p.tolist() == pytest.approx([0.8 * g / sum(to_gain) + 0.2 / 3 for g in to_gain], abs=1e-5)


def test_progress_is_not_fooled_by_a_task_that_cannot_be_learnt():
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(24, 2, generator=generator, dtype=torch.float64)
    rows = [(8 + float(noise[k, 0]), 4 - 0.05 * k + float(noise[k, 1])) for k in range(24)]
    progress, loss = run("progress", rows)[0], run("loss", rows)[0]
    assert progress[1] > 0.8
    assert loss[0] > 0.9


def test_progress_is_uniform_until_a_line_has_an_error_and_forgets_beyond_the_window():
    rows = [(5.0 - 0.1 * k, 4.0) for k in range(30)]
    assert run("progress", rows[:2])[0].tolist() == [0.5, 0.5]
    assert run("progress", rows[:3])[0][0] > 0.8
    _, state = run("progress", rows)
    assert state["losses"].shape == (24, 2)
    assert state["losses"][0, 0] == pytest.approx(5.0 - 0.6)
    assert state["progress"].tolist() == pytest.approx([0.02 * k for k in range(6, 30)])


def test_progress_at_the_end_of_the_budget_and_at_one_moment():
    assert run("progress", [(5.0 - k, 4.0) for k in range(3)], every=0.5)[0].tolist() == [0.5, 0.5]
    assert run("progress", [(5.0 - k, 4.0) for k in range(3)], every=0.0)[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["loss", "progress"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_loss_is_said(name, bad):
    with pytest.raises(ApportionError, match="diverged"):
        run(name, [(1.0, bad)])


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"type": "loss", "temperature": 0}, "temperature"),
        ({"type": "loss", "gamma": 1.1}, "gamma"),
        ({"type": "loss", "ema": 1}, "ema"),
        ({"type": "loss", "refresh": 0}, "refresh"),
        ({"type": "progress", "max_cost": 0}, "max_cost"),
        ({"type": "progress", "every": 0.02}, "every"),
        ({"type": "progress", "window": 2}, "window"),
        ({"type": "progress", "noise": 0}, "noise"),
        ({"type": "progress", "examples_per_task": 0}, "examples_per_task"),
    ],
)
def test_settings_out_of_range_name_their_key(spec, key):
    with pytest.raises(ApportionError, match=rf"'mixture\.{key}'"):
        MIXTURES.build(spec)
