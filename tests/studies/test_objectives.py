"""The study's other objectives: what each task counts is the objective's own gradient, and each is what it is called."""

import pytest
import torch
from studies.tokens_to_target.objectives import Cvar, Groups, Raw, _Weighted, _WorstShare

from apportion.mixtures import Adapt, TaskSizes
from apportion.signals.objective import SmoothWorst

LOSSES = torch.tensor([0.3, 2.0, 1.1, 0.9, 1.7], dtype=torch.float64)
FLOORS = torch.tensor([0.1, 1.9, 0.0, 0.5, 0.2], dtype=torch.float64)
IMPORTANCE = torch.tensor([0.1, 0.4, 0.1, 0.2, 0.2], dtype=torch.float64)
SIZES = TaskSizes(tuple("abcde"), torch.ones(5).double(), torch.ones(5).double())


@pytest.mark.parametrize("objective", [_WorstShare(0.4, FLOORS), _Weighted(0.7, FLOORS, IMPORTANCE)])
def test_what_each_task_counts_is_the_gradient(objective):
    torch.testing.assert_close(objective.emphasis(LOSSES), torch.func.grad(objective)(LOSSES))
    assert float(objective.emphasis(LOSSES).sum()) == pytest.approx(1)


def test_the_worst_share_is_of_what_stands_above_the_floors():
    assert _WorstShare(0.4, FLOORS).emphasis(LOSSES).tolist() == [0, 0, 0.5, 0, 0.5]
    assert _WorstShare(1.0, FLOORS).emphasis(LOSSES).tolist() == pytest.approx([0.2] * 5)


def test_equal_importance_is_adapts_own_objective():
    equal = _Weighted(0.7, FLOORS, torch.full((5,), 0.2).double())
    torch.testing.assert_close(equal(LOSSES), SmoothWorst(0.7, FLOORS)(LOSSES))


def test_importance_starts_as_the_mixture():
    mixture = Groups(important=("b",), factor=4.0, floor=0.0)
    state = mixture.init(SIZES)
    assert mixture.proportions(state).tolist() == pytest.approx([0.125, 0.5, 0.125, 0.125, 0.125])
    assert mixture.objective(state).emphasis(LOSSES)[1] > Adapt().objective(state).emphasis(LOSSES)[1]


def test_raw_takes_nothing_off_and_the_others_do():
    state = Cvar().init(SIZES)
    for progress in (0.1, 0.2, 0.3, 0.4):
        state = Cvar()._recorded(state, LOSSES, progress)  # losses that stand still are all floor
    assert float(Raw().objective(state)(LOSSES)) == pytest.approx(float(SmoothWorst(1.0)(LOSSES)))
    assert Cvar().irreducible(state).tolist() == pytest.approx(LOSSES.tolist())
