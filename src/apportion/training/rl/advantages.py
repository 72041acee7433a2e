"""Advantages of thinking that is cut at several budgets (BRPO, arXiv 2505.13438): numpy in, numpy out, no model.

Q prompts, G roll-outs a prompt, S budgets b_1 < ... < b_S, A summaries at each; P_s the prior on budgets. GRPO is the case
of one budget and one summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Baseline = Literal["brpo", "own", "group", "none"]
Prior = Literal["base", "uniform", "linear"]


def prior_of(prior: Prior | Sequence[float], budgets: Sequence[int]) -> np.ndarray:
    """Return P, (S,) float64, summing to one.

    ``base`` is all on the largest budget, ``uniform`` alike, and ``linear`` in proportion to the budget (all three from the
    paper's code); numbers are taken as they stand, divided by their sum.
    """
    if prior == "base":
        weights = np.array([0.0] * (len(budgets) - 1) + [1.0])
    elif prior == "uniform":
        weights = np.ones(len(budgets))
    elif prior == "linear":
        weights = np.array(budgets, dtype=np.float64)
    else:
        weights = np.array(prior, dtype=np.float64)
    return weights / weights.sum()


def brpo(
    rewards: np.ndarray, prior: np.ndarray, ends: np.ndarray, baseline: Baseline = "brpo"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the advantages of thinking by segment, (Q, G, S), and of summaries, (Q, G, S, A).

    With r_(g,s) the mean over the summaries of a cut, the return of segment s, the tokens in (b_(s-1), b_s], is

        R_(g,s) = sum over b >= s of P_b r_(g,b)

    and what is taken off it (s counted from 0) is ``(s V1 + (S - s) V2) / S``: V1 the trace's own past, the mean of r_(g,i)
    over i < s with weights 2^i, times the sum of P_b over b >= s; V2 the mean of R over the group. V1 leaves the gradient's
    expectation as it is; V2 includes the trace itself, which scales segment s by ``1 - (S - s) / (S G)``. A summary's
    baseline is the mean over all summaries of its trace's cut, those of the budgets that share one cut together; of a cut
    with one summary it is the mean over the group's traces.

    Args:
        rewards: r of each summary, (Q, G, S, A).
        prior: P, (S,).
        ends: The index of the last segment that has tokens, (Q, G); budgets from there on share one cut.
        baseline: ``brpo``, or of its two values ``own`` (V1) or ``group`` (V2) alone, or ``none``.

    Source: 2505.13438, and its authors' code for the weights of V1 and of the mixture.
    """
    _, _, budgets, summaries = rewards.shape
    segment = np.arange(budgets)
    r = rewards.mean(-1)
    tail = prior[::-1].cumsum()[::-1]
    returns = (prior * r)[..., ::-1].cumsum(-1)[..., ::-1]
    recent = 2.0**segment
    before = np.concatenate([np.zeros_like(r[..., :1]), (recent * r).cumsum(-1)[..., :-1]], -1)
    own = before / np.maximum(recent.cumsum() - recent, 1.0) * tail
    group = np.broadcast_to(returns.mean(1, keepdims=True), returns.shape)
    taken = {
        "brpo": (segment * own + (budgets - segment) * group) / budgets,
        "own": own,
        "group": group,
        "none": np.zeros_like(returns),
    }[baseline]
    thinking = np.where(segment <= ends[..., None], returns - taken, 0.0)
    # Budgets from the end on are one cut, with as many times the summaries.
    shared = segment >= ends[..., None]
    together = shared.sum(-1, keepdims=True)
    pooled = np.where(shared, r, 0.0).sum(-1, keepdims=True) / together
    size = np.where(shared, together, 1) * summaries
    middle = np.where(size > 1, np.where(shared, pooled, r), r.mean(1, keepdims=True))
    return thinking, rewards - middle[..., None]
