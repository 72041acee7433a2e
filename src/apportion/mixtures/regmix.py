"""RegMix: many small runs of random mixtures, a regression from mixture to loss, and the mixtures that it says are best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from apportion._config import plain as plain_values
from apportion._errors import ApportionError
from apportion.mixtures._found import SETTLED_ADVICE, Found
from apportion.mixtures._mixture import Mixture, Outcome, State, TaskSizes, Trial
from apportion.mixtures._regression import FITS, fitted, held_out_correlation, load_lightgbm
from apportion.models.specs import ModelSpec

# Concentrations of the Dirichlet distributions, from the first trial's to the last one's.
LOOSEST, TIGHTEST = 0.1, 5.0
SIMULATED, BEST = 100_000, 128
# How often mixtures are drawn again in place of those above the cap.
MOST_ROUNDS = 200
DIGITS = 6


def candidates(prior: np.ndarray, count: int, cap: float, seed: np.random.Generator) -> np.ndarray:
    """Return ``count`` mixtures p ~ Dirichlet(s prior), (count, T), s log-spaced over them; those above ``cap`` are redrawn.

    Args:
        prior: (T,), summing to one.
        count: How many.
        cap: The most that a task may have, or twice its even share where that is more.
        seed: What they are drawn by.

    Source: Liu et al. 2024, RegMix, arXiv 2407.01492, section 3.1.

    Raises:
        ApportionError: The cap leaves too few.
    """
    shapes = np.geomspace(LOOSEST, TIGHTEST, count)[:, None] * prior
    most, found = max(cap, 2 / len(prior)), np.empty((0, len(prior)))
    for _ in range(MOST_ROUNDS):
        drawn = seed.standard_gamma(shapes)
        totals = drawn.sum(1, keepdims=True)
        drawn = drawn[totals[:, 0] > 0] / totals[totals[:, 0] > 0]  # of small shapes all may round off to nothing
        found = np.concatenate([found, drawn[drawn.max(1) <= most]])
        if len(found) >= count:
            return found[:count]
    raise ApportionError(f"'mixture.cap' of {cap:g} leaves hardly a mixture of {len(prior)} tasks to try: raise it.")


class RegMix(Mixture):
    """Mixture found by trials of random mixtures: the mean of those that a regression over them says end lowest.

    What it optimises: the loss that the regression predicts: of the targets, or macro where none are named.
    Shapes: T tasks, n trials; state holds p, (T,).
    Cost: n trials, charged to `proxy`; at the defaults about the run again. The fit takes seconds, and no pass.
    References: Liu et al. 2024, RegMix (arXiv 2407.01492).
    Departures: the prior is uniform unless ``prior`` says otherwise: with the paper's, by sizes, a task of a five-hundredth
        of the largest is hardly ever tried, and tasks count alike in the macro loss. The trials have the run's own model
        unless ``proxy`` names a smaller one. The paper's trees see hundreds of mixtures. Here they are stumps, for what
        two simpler fits leave: a line in how widely a mixture spreads, and ridge regression on its shares.
    Relations: `upsample` with a grid tries mixtures along one line, and `doremi` runs one proxy.

    Attributes:
        trials: n.
        trial: Share of the run's budget that each may spend.
        proxy: A model block that replaces the run's in the trials; None for the run's own.
        prior: Mean of the mixtures that are tried: every task alike, or by supervised tokens.
        cap: Mixtures in which a task has more than this are left out; twice its even share is always let in.
        fit: The regression: with boosted trees, or without.
        seed: Of the mixtures that are tried and simulated, and of what is held out.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = SETTLED_ADVICE

    trials: int = Field(32, ge=8)
    trial: float = Field(0.03, gt=0, le=1)
    proxy: ModelSpec | None = None
    prior: Literal["uniform", "proportional"] = "uniform"
    cap: float = Field(0.5, gt=0, le=1)
    fit: Literal["lightgbm", "linear"] = "lightgbm"
    seed: int = Field(0, ge=0)

    def ask(self, tasks: TaskSizes, folder: Path) -> Mapping[str, Trial]:
        """Ask for a run of each of the random mixtures.

        Raises:
            ApportionError: The cap leaves too few, or LightGBM is not installed: better known before they are run.
        """
        if len(tasks.names) == 1:
            return {}
        if self.fit == "lightgbm":
            load_lightgbm()
        common = {} if self.proxy is None else {"model": plain_values(self.proxy)}
        names = sorted(tasks.names)
        found = {}
        for number, p in enumerate(self._tried(tasks)):
            shares = dict(zip(names, p.tolist(), strict=True))
            block = {"type": "fixed", **self.drawing(), "shares": {name: shares[name] for name in tasks.names}}
            found[f"mixture-{number:03d}"] = Trial({**common, "mixture": block}, self.trial)
        return found

    def tell(self, tasks: TaskSizes, outcomes: Mapping[str, Outcome]) -> Found:
        """Return the mean of the mixtures that are predicted to end lowest, and say how well that was predicted."""
        p, losses = self._tried(tasks), np.array([outcome.loss for outcome in outcomes.values()])
        fits, seed = FITS[self.fit], np.random.default_rng([self.seed, 1])
        correlation = held_out_correlation(fits, p, losses, seed)
        predict = fitted(fits, p, losses, seed)
        simulated = candidates(self._prior(tasks), SIMULATED, self.cap, seed)
        predicted = predict(simulated)
        best = np.argsort(predicted, kind="stable")[:BEST]
        said = (
            f"RegMix, {self.fit}: rank correlation of predicted and measured loss {correlation:.2f} over {len(p)} trials, "
            f"each held out once, a quarter at a time. A fit to all of them predicts {predicted[best].mean():.3f} for the "
            f"mean of the best {BEST} of {SIMULATED:,} mixtures; the best trial ended at {losses.min():.3f}."
        )
        shares = dict(zip(sorted(tasks.names), simulated[best].mean(0).tolist(), strict=True))
        return Found(shares=shares, said=(said,), **self.drawing())

    def _prior(self, tasks: TaskSizes) -> np.ndarray:
        """Return the mean of the mixtures, in the order of the tasks' names: theirs in the collection must not matter."""
        sizes = tasks.supervised if self.prior == "proportional" else torch.ones_like(tasks.supervised)
        order = sorted(range(len(tasks.names)), key=lambda i: tasks.names[i])
        return (sizes / sizes.sum())[order].numpy()

    def _tried(self, tasks: TaskSizes) -> np.ndarray:
        """Return the trials' mixtures, (n, T), rounded as their recipes hold them."""
        drawn = candidates(self._prior(tasks), self.trials, self.cap, np.random.default_rng([self.seed, 0]))
        p = drawn.round(DIGITS)
        p[np.arange(len(p)), p.argmax(1)] += 1 - p.sum(1)
        return p.round(DIGITS)

    def init(self, tasks: TaskSizes) -> State:
        """Return the prior, as long as nothing is known."""
        sizes = tasks.supervised if self.prior == "proportional" else torch.ones_like(tasks.supervised)
        return {"p": sizes / sizes.sum()}
