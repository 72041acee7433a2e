"""`ap.reinforce`: a run from Python, and what it says of itself."""

from __future__ import annotations

import pytest

import apportion as ap
from tests.plans.test_reinforce import SFT, start  # noqa: F401 - the fixture


def test_python_does_what_a_recipe_does(start, tmp_path):  # noqa: F811
    done = ap.reinforce(
        start,
        budgets=[2, 6],
        tasks=SFT["tasks"],
        budget={"generated": 500},
        out=tmp_path / "run",
        rollouts=2,
        summaries=1,
        prompts=2,
        answer=2,
        validation={"every": 1.0, "examples_per_task": 2},
        training={"learning_rate": 1e-3},
        mixture=ap.mixtures.Proportional(),
    )
    assert done.summary["steps"] >= 1 and "generated tokens, area" in repr(done)
    assert done.report() == tmp_path / "run" / "report.html"
    with pytest.raises(ap.ApportionError, match="did you mean 'rollouts'"):
        ap.reinforce(start, budgets=[2], tasks=SFT["tasks"], budget={"generated": 500}, out=tmp_path / "x", rollout=2)
    with pytest.raises(ap.ApportionError, match="'start' must be a run folder"):
        ap.reinforce(3, budgets=[2], tasks=SFT["tasks"], budget={"generated": 500}, out=tmp_path / "x")
