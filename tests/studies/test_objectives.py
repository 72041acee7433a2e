"""The study's own objective: what each target counts is its gradient, and it is what it is called."""

import pytest
import torch
from studies.tokens_to_target.objectives import Cvar

from apportion.objectives import Reducible

LOSSES = torch.tensor([0.3, 2.0, 1.1, 0.9, 1.7], dtype=torch.float64)
ALIKE = torch.ones(5, dtype=torch.float64)


def after(objective, *measured):
    state = objective.init(ALIKE)
    for at, losses in enumerate(measured):
        state = objective.update(state, losses, (at + 1) / 10)
    return state


def test_what_each_target_counts_is_the_gradient():
    objective = Cvar(share=0.4).at(after(Cvar(), LOSSES, LOSSES / 2))
    torch.testing.assert_close(objective.emphasis(LOSSES), torch.func.grad(objective)(LOSSES))
    assert float(objective.emphasis(LOSSES).sum()) == pytest.approx(1)


def test_the_worst_share_is_of_what_can_still_be_lost():
    assert Cvar(share=0.4).at(after(Cvar())).emphasis(LOSSES).tolist() == [0, 0.5, 0, 0, 0.5]
    assert Cvar(share=1.0).at(after(Cvar())).emphasis(LOSSES).tolist() == pytest.approx([0.2] * 5)
    # The second stands still, so that all of its loss is floor; the others fall.
    falling = [LOSSES + torch.tensor([1, 0, 1, 1, 1.0]) * left for left in (0.9, 0.6, 0.3, 0.0)]
    assert Reducible().irreducible(after(Cvar(), *falling))[1] == pytest.approx(2.0)
    assert Cvar(share=0.2).at(after(Cvar(), *falling)).emphasis(LOSSES)[1] == 0
