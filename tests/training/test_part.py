"""Parts of a run: told in an order that nests, restored first to last, and refused where they are others."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from apportion._errors import ApportionError
from apportion.budget import Budget, Ledger
from apportion.training.part import Done, Kept, Origin, Part, Parts
from apportion.training.sampler import TaskSampler
from tests.training.units import make_moment

CPU = torch.device("cpu")
MODEL = torch.nn.Linear(2, 2)
DONE = Done(MODEL, 1, 0.1)


class Telling(Part):
    """Writes down what it is told."""

    def __init__(self, name, told):
        self.name, self.told, self.number = name, told, 0

    def before_step(self, moment):
        self.told.append((self.name, "before", moment.step))

    @contextmanager
    def during(self, model, batch, lr):
        self.told.append((self.name, "enter", lr))
        try:
            yield
        finally:
            self.told.append((self.name, "leave", lr))

    def after_step(self, done):
        self.told.append((self.name, "after", done.step))

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state, device):
        self.told.append((self.name, "restored", device.type))
        self.number = state["number"]


def three():
    told = []
    return [Telling(name, told) for name in "abc"], told


def test_the_first_part_is_told_first_before_a_step_and_last_after_it():
    parts, told = three()
    whole = Parts(parts)
    whole.before_step(make_moment(MODEL, 4))
    assert told == [(name, "before", 4) for name in "abc"]
    told.clear()
    whole.after_step(DONE)
    assert told == [(name, "after", 1) for name in "cba"]


def test_a_micro_batch_is_wrapped_with_the_first_part_outermost_even_if_it_fails():
    parts, told = three()
    with pytest.raises(ZeroDivisionError), Parts(parts).during(MODEL, None, 0.5):
        told.append("inside")
        raise ZeroDivisionError
    assert told == [*((name, "enter", 0.5) for name in "abc"), "inside", *((name, "leave", 0.5) for name in "cba")]


def test_states_are_held_by_name_and_restored_first_to_last():
    parts, _ = three()
    for number, part in enumerate(parts):
        part.number = number + 7
    state = Parts(parts).state_dict()
    assert list(state.items()) == [("a", {"number": 7}), ("b", {"number": 8}), ("c", {"number": 9})]
    others, told = three()
    Parts(others).load_state_dict(state, CPU)
    assert [part.number for part in others] == [7, 8, 9]
    assert told == [(name, "restored", "cpu") for name in "abc"]


def test_a_part_that_leaves_everything_as_it_is_does_and_keeps_nothing():
    part = Part()
    part.name = "still"
    whole = Parts([part])
    whole.before_step(make_moment(MODEL, 0))
    with whole.during(MODEL, None, 0.1):
        pass
    whole.after_step(DONE)
    assert whole.state_dict() == {"still": {}}
    whole.load_state_dict({"still": {}}, CPU)


def test_two_parts_of_one_name_are_refused():
    told = []
    with pytest.raises(ValueError, match="Two parts have one name"):
        Parts([Telling("a", told), Telling("b", told), Telling("a", told)])


@pytest.mark.parametrize("names", ["ab", "abcd", "abd", "acb"])
def test_a_checkpoint_of_other_parts_is_refused_by_their_names_before_any_is_restored(names):
    parts, told = three()
    state = {name: {"number": 1} for name in names}
    with pytest.raises(ApportionError, match=f"holds {', '.join(names)}, this version a, b, c: start a new folder"):
        Parts(parts).load_state_dict(state, CPU)
    assert told == [] and [part.number for part in parts] == [0, 0, 0]


def test_a_ledger_and_a_sampler_are_kept_as_they_are():
    ledgers = [Ledger(Budget("supervised", 50)) for _ in range(2)]
    samplers = [TaskSampler([5, 9], [np.ones(5, int), np.ones(9, int)], seed=0) for _ in range(2)]
    before, after = (Parts([Kept("ledger", a), Kept("sampler", b)]) for a, b in zip(ledgers, samplers, strict=True))
    ledgers[0].charge("train", supervised=7, processed=9, padded=16, flops=12.5)
    samplers[0].draw(np.array([0.3, 0.7]), 6)
    after.load_state_dict(before.state_dict(), CPU)
    assert ledgers[1].spent("train") == ledgers[0].spent("train")
    assert ledgers[1].progress == 0.14
    p = np.array([0.6, 0.4])
    assert samplers[1].draw(p, 8) == samplers[0].draw(p, 8)


def test_what_a_kept_thing_refuses_is_refused():
    state = Parts([Kept("ledger", Ledger(Budget("supervised", 50)))]).state_dict()
    with pytest.raises(ApportionError, match="budget of 50 supervised tokens, this one of 60"):
        Parts([Kept("ledger", Ledger(Budget("supervised", 60)))]).load_state_dict(state, CPU)


def test_a_run_goes_on_with_the_data_it_began_with():
    Origin("one").load_state_dict(Origin("one").state_dict(), CPU)
    with pytest.raises(ApportionError, match="tasks' data or the tokenizer changed since this run began"):
        Origin("two").load_state_dict(Origin("one").state_dict(), CPU)


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(monkeypatch):
    state = Origin("one").state_dict()
    assert state["processes"] == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ApportionError, match=r"began with 1 processes.*not with 4: start as many again"):
        Origin("one").load_state_dict(state, CPU)
    Origin("one").load_state_dict(Origin("one").state_dict(), CPU)
