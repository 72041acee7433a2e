"""At the start, generators hear what task they write for: tasks differ in little, and places must not drown it."""

import pytest
import torch

from apportion.models.tagi.heads import HEADS
from apportion.models.tagi.slots import Slot

SLOTS = [Slot(f"layers.{i}.{kind}", f"layers.{kind}", i, 32, 32) for i in range(4) for kind in ("q", "v")]


@pytest.mark.parametrize("name", ["shared_index", "module_depth"])
@pytest.mark.parametrize("seed", range(3))
def test_tasks_differ_not_much_less_than_layers(name, seed):
    torch.manual_seed(seed)
    head = HEADS[name](SLOTS, 64, 4, 64)
    # As pooled instructions are: much in common, little apart.
    codes = torch.tanh(0.3 * torch.randn(64) + 0.05 * torch.randn(8, 64))
    made = head(codes)
    a = torch.stack([made[slot.name][0] for slot in SLOTS if slot.kind.endswith("q")], 1).detach()
    assert float(a.var(0).mean()) > 0.1 * float(a.var(1).mean())
