"""LinUpper by hand, at its limits, and over a whole optimizer step."""

from __future__ import annotations

import math

import pytest
import torch

from apportion import weights as family
from apportion.signals import Seen
from apportion.weights.linupper import linupper
from tests.training.runs import history, ledger, run, weights


def literal(losses, r):
    low, high = min(losses), max(losses)
    raised = [math.exp(min((2 * loss - high - low) / (high - low) + 1, 1) / r) for loss in losses]
    return [len(losses) * each / sum(raised) for each in raised]


@pytest.mark.parametrize("r", [0.1, 0.4, 3.0])
def test_the_formula(r):
    losses = torch.rand(11, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 5
    w = linupper(losses, r)
    assert w.tolist() == pytest.approx(literal(losses.tolist(), r), rel=1e-12)
    assert float(w.sum()) == pytest.approx(11)


def test_it_is_flat_above_the_middle_and_rises_below():
    w = family.LinUpper().weigh(Seen(losses=torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])))
    assert w[2] == w[3] == w[4]
    assert w[0] < w[1] < w[2]
    assert float(w[2] / w[0]) == pytest.approx(math.exp(1 / 0.4), rel=1e-5)


@pytest.mark.parametrize("losses", [[2.0], [3.0, 3.0, 3.0]])
def test_equal_losses_weigh_one(losses):
    assert linupper(torch.tensor(losses), 0.4).tolist() == pytest.approx([1.0] * len(losses))


def test_shift_and_scale_of_the_losses_do_not_matter():
    losses = torch.rand(9, dtype=torch.float64)
    torch.testing.assert_close(linupper(3 * losses + 7, 0.4), linupper(losses, 0.4))


def test_one_micro_batch_costs_nothing_and_several_one_forward_pass(tmp_path):
    free = run(tmp_path / "free")
    one = run(tmp_path / "one", "weights=linupper")
    several = run(
        tmp_path / "several",
        "weights=linupper",
        "training.per_device_train_batch_size=2",
        "training.gradient_accumulation_steps=4",
    )
    assert ledger(one)["accounts"] == ledger(free)["accounts"]
    meta, train = (ledger(several)["accounts"][name] for name in ("meta", "train"))
    assert meta["processed"] == train["processed"]
    assert meta["flops"] == pytest.approx(train["flops"] / 3, rel=0.05)


def test_weights_of_one_are_plain_training_bit_for_bit(tmp_path):
    """Warm-up that never ends goes through the weighted path with ones; both end where training without weights ends."""
    plain = run(tmp_path / "plain")
    uniform = run(tmp_path / "uniform", "weights=uniform")
    ones = run(tmp_path / "ones", "weights={type: linupper, warmup: 1000000}")
    weighed = run(tmp_path / "weighed", "weights={type: linupper, warmup: 5}")
    assert weights(plain) == weights(uniform) == weights(ones) != weights(weighed)
    bare = [{k: v for k, v in record.items() if k not in ("weights", "seconds")} for record in history(ones)]
    assert bare == [{k: v for k, v in record.items() if k != "seconds"} for record in history(plain)]
    assert all(record["weights"] == {"mean": 1.0, "std": 0.0, "ess": 1.0} for record in history(ones)[1:-1])
    assert [record["weights"]["ess"] < 1 for record in history(weighed)[1:8]] == [False] * 5 + [True] * 2
