"""What a measurement says: accuracy by budget against the thinking that was used, and how sure it is."""

import numpy as np
import pytest

from apportion.runs.thinking import area
from apportion.training.rl.recorder import curve_of
from apportion.training.rl.traces import Summary, Trace, segment_of
from tests.training.rl.made import CLOSE, trace

BUDGETS = (2, 4, 8)


def made(length, right):
    """A trace of so many thinking tokens, right from its first budget with ``right`` tokens on."""
    base = trace(np.random.default_rng(length), BUDGETS, 1, length=length)
    cuts = tuple((Summary((5, 1), "5", 1.0, budget >= right),) for budget in BUDGETS)
    own = length < BUDGETS[-1]
    return Trace(base.problem, base.thinking, CLOSE, (own, own), CLOSE, segment_of(length, BUDGETS), cuts)


def test_used_is_what_was_thought_and_not_the_budget():
    curve = curve_of([made(1, 2), made(3, 4), made(8, 8), made(8, 99)], BUDGETS)
    assert curve["accuracy"] == [0.25, 0.5, 0.75]
    assert curve["used"] == [(1 + 2 + 2 + 2) / 4, (1 + 3 + 4 + 4) / 4, (1 + 3 + 8 + 8) / 4]
    # At 2 the first has ended; at 8 those that went on to the budget were cut off.
    assert curve["forced"] == [0.75, 0.5, 0.5]
    assert curve["prompts"] == 4
    assert curve["error"][0] == pytest.approx(np.std([1, 0, 0, 0], ddof=1) / 2)
    assert curve["area"] == pytest.approx(area(zip(curve["used"], curve["accuracy"], strict=True), 8))


def test_a_model_that_is_done_sooner_has_the_larger_area():
    quick, slow = curve_of([made(2, 2)] * 3, BUDGETS), curve_of([made(8, 8)] * 3, BUDGETS)
    assert quick["area"] == 1.0 > slow["area"] > 0
    assert quick["error"] == [0.0, 0.0, 0.0]
    assert curve_of([made(2, 2)], BUDGETS)["error"] == [None, None, None]
