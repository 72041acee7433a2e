"""A run's roll-outs, step by step: problems drawn by the mixture, their traces, and the advantages they are trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import nn

from apportion.budget import Account, Ledger, Served, charge
from apportion.budget.allowance import Allowance
from apportion.training.rl.advantages import brpo, prior_of
from apportion.training.rl.rolling import Roller, Step
from apportion.training.rl.traces import Problem, Trace, rewards_of
from apportion.training.rl.tree import Row, tree
from apportion.training.sampler import TaskSampler

# Seeds of what is drawn for training, and of what is measured.
_TRAINING, _MEASURING = 0, 1
_STEPS = 10**7


@dataclass
class Rolled:
    """The last step's traces, in groups of one problem, and the advantages of their thinking by segment (Q, G, S)."""

    traces: list[Trace] = field(default_factory=list)
    thinking: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1)))


class Rollouts:
    """Draws, rolls out, judges and charges.

    Args:
        roller: Makes traces.
        problems: The training problems of each task.
        measured: Those that are measured on.
        sampler: Draws from the tasks.
        p: The mixture, (T,).
        ledger: `generate` is charged for training's traces, `validation` for measured ones.
        seed: Of all draws.

    Attributes:
        measuring: Makes the traces that are measured, cut at their budgets.
        rolled: The last step.
    """

    def __init__(
        self,
        roller: Roller,
        problems: Sequence[Sequence[Problem]],
        measured: Sequence[Problem],
        *,
        sampler: TaskSampler,
        p: np.ndarray,
        ledger: Ledger,
        seed: int,
    ) -> None:
        self.roller, self._problems, self._measured = roller, problems, measured
        self.sampler, self.p, self._ledger, self._seed = sampler, p, ledger, seed
        spec = roller.spec
        self.measuring = replace(roller, spec=spec.model_copy(update={"budgets": spec.measures}))
        self._prior = prior_of(spec.prior, spec.budgets)
        self._longest = max(len(problem.ids) for task in problems for problem in task)
        self.rolled = Rolled()

    @cached_property
    def step_price(self) -> Step:
        """What a step takes at most: every problem as long as the longest, every thinking and answer at full length."""
        spec = self.roller.spec
        one, count = self.roller.at_most(self._longest, spec.summaries), spec.prompts * spec.rollouts
        return Step(count * one.generated, count * one.generate, count * one.train)

    @cached_property
    def measure_price(self) -> Step:
        """What a measurement takes at most; nothing of it is trained on."""
        parts = [self.measuring.at_most(len(problem.ids), 1) for problem in self._measured]
        return Step(sum(part.generated for part in parts), sum(part.generate for part in parts), 0.0)

    def affords(self) -> bool:
        """Return whether a whole step fits what is left of the budget, and in FLOPs the closing measurement behind it."""
        step = self.step_price
        if self._ledger.budget.unit == "generated":
            return step.generated <= self._ledger.remaining
        return Allowance(self._ledger, self.measure_price.generate).affords(step.generate + step.train)

    def roll(self, model: nn.Module, step: int) -> list[Row]:
        """Return the rows of a step, one a roll-out; none where the budget leaves no whole step, or the mixture no problem.

        Cost: charged to `generate`.
        """
        if not self.affords():
            return []
        spec = self.roller.spec
        drawn = [self._problems[task][index] for task, index in self.sampler.draw(self.p, spec.prompts)]
        if not drawn:  # all tasks have reached 'max_epochs'
            return []
        grouped = [problem for problem in drawn for _ in range(spec.rollouts)]
        traces = self._traces(self.roller, model, grouped, spec.summaries, _TRAINING, step, "generate")
        rewards, ends = rewards_of(traces, spec.rollouts)
        thinking, summaries = brpo(rewards, self._prior, ends, spec.baseline)
        self.rolled = Rolled(traces, thinking)
        flat = zip(
            traces, thinking.reshape(-1, thinking.shape[-1]), summaries.reshape(-1, *summaries.shape[2:]), strict=True
        )
        return [tree(trace, spec.budgets, think, summary) for trace, think, summary in flat]

    def measure(self, model: nn.Module) -> list[Trace]:
        """Return a trace with one answer at each budget of each problem that is measured on, by the same draws each time.

        Cost: charged to `validation`.
        """
        return self._traces(self.measuring, model, self._measured, 1, _MEASURING, 0, "validation")

    def _traces(
        self,
        roller: Roller,
        model: nn.Module,
        problems: Sequence[Problem],
        summaries: int,
        stream: int,
        step: int,
        account: Account,
    ) -> list[Trace]:
        def charged(served: Served, put: int) -> None:
            charge(self._ledger, served, account, put=put)

        seed = (2 * self._seed + stream) * _STEPS + step
        return roller.traces(model, problems, charged, summaries=summaries, seed=seed)
