"""A warm-up's checkpoints as a selection looks at them: weights, the optimizer's state, how much each counts."""

from __future__ import annotations

import pytest
import torch

from apportion._errors import ApportionError
from apportion.plans.build import load_data
from apportion.plans.warming import looks_of
from apportion.training.trainer import BudgetTrainer
from tests.plans.selecting import recipe, run

WARM = ("validation.every=0.25", "checkpoints=all", "budget=600", "training.lr_scheduler_type=linear")


@pytest.mark.parametrize("lora", [(), ("lora.r=4",)])
def test_a_look_is_at_the_checkpoint_as_it_was_left(tmp_path, monkeypatch, lora):
    left = []
    save = BudgetTrainer._save_optimizer_and_scheduler

    def remembered(trainer, folder):
        save(trainer, folder)
        trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        moments = {name: trainer.optimizer.state[p] for name, p in trained.items() if p in trainer.optimizer.state}
        left.append(
            (
                {name: p.detach().clone() for name, p in trained.items()},
                {name: (of["exp_avg"].clone(), of["exp_avg_sq"].clone()) for name, of in moments.items()},
                trainer.state.global_step,
            )
        )

    monkeypatch.setattr(BudgetTrainer, "_save_optimizer_and_scheduler", remembered)
    out = run(tmp_path / "run", *WARM, *lora).path
    monkeypatch.undo()
    asked = recipe(*WARM, *lora)
    weights, seen = [], 0
    for look, (parameters, moments, step) in zip(looks_of(asked, load_data(asked), out, 4), left[-4:], strict=True):
        found = {name: p.detach() for name, p in look.model.named_parameters() if p.requires_grad}
        assert found.keys() == parameters.keys() == look.inner.moments.keys() == moments.keys()
        assert all(torch.equal(found[name], p) for name, p in parameters.items())
        for name, (first, second) in moments.items():
            assert torch.equal(look.inner.moments[name][0], first) and float(first.abs().sum()) > 0
            assert torch.equal(look.inner.moments[name][1], second)
        assert look.inner.step == step
        weights.append(look.weight)
        seen += 1
    assert seen == 4
    # By a linear schedule the stretches' mean rates fall as 7 : 5 : 3 : 1.
    assert sum(weights) == pytest.approx(1)
    assert weights == pytest.approx([7 / 16, 5 / 16, 3 / 16, 1 / 16], abs=0.03)


def test_fewer_checkpoints_than_looks_are_refused(tmp_path):
    out = run(tmp_path / "run", *WARM).path
    asked = recipe(*WARM)
    with pytest.raises(ApportionError, match=r"left \d checkpoints of 9: raise 'selection.warmup'"):
        next(looks_of(asked, load_data(asked), out, 9))
