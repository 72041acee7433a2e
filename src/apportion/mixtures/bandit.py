"""Bandit: tasks are the arms of Exp3, and what a task's examples lose in training is its reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from apportion.mixtures._mixture import Feedback, Mixture, State, TaskSizes
from apportion.signals._signal import TaskSignal
from apportion.signals.train_losses import TrainLosses

EMA = 0.9


def exploration(count: int, turn: int) -> float:
    """Return eps_t = min(1/T, sqrt(ln T / (T t))) of ``count`` tasks T at the turn t, 1/T before the first.

    Source: Albalak et al. 2023, arXiv 2312.02406, algorithm 1.
    """
    return min(1 / count, math.sqrt(math.log(count) / (count * turn))) if turn else 1 / count


def exp3(rewards: Tensor, turn: int) -> Tensor:
    """Return p, (T,), at the turn t: p_i = (1 - T eps_t) softmax(eps_{t-1} R)_i + eps_t.

    Args:
        rewards: R, (T,), after turn t - 1.
        turn: t, from 1.

    Source: Albalak et al. 2023, arXiv 2312.02406, algorithm 1.
    """
    count = len(rewards)
    now = exploration(count, turn)
    return (1 - count * now) * torch.softmax(exploration(count, turn - 1) * rewards, 0) + now


def rewarded(rewards: Tensor, losses: Tensor, p: Tensor) -> Tensor:
    """Return R, (T,), after a step: 0.9 R_i + 0.1 L_i / p_i where task i was drawn, R_i elsewhere.

    Args:
        rewards: R before.
        losses: L, (T,), the mean training loss of each task's examples in the step; NaN for a task without.
        p: What the step was drawn from, (T,).

    Source: Albalak et al. 2023, arXiv 2312.02406, algorithm 1; dividing by p_i makes the reward's mean that of all arms.
    """
    return torch.where(losses.isnan(), rewards, EMA * rewards + (1 - EMA) * losses / p)


class Bandit(Mixture):
    """Learnt mixture: more of the tasks whose training examples still have a high loss, by a bandit's rule.

    What it optimises: the sum of the rewards of what is drawn, against the best single task in hindsight.
    Shapes: T tasks; state holds R, (T,), and the turn t.
    Cost: none. The losses are those of the training forward; nothing is measured apart.
    References: Albalak et al. 2023, Online Data Mixing (arXiv 2312.02406), algorithm 1.
    Departures: a step holds examples of many tasks, and not of one; the paper's first hundredth of the run, in which
        it draws by the domains' sizes, is left out: until sqrt(ln T / (T t)) < 1/T the rule itself draws uniformly.
    Relations: `loss` follows validation losses in the same sense. Both are drawn to what cannot be learnt, and neither
        looks at targets.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = {
        "narrowed": "Set mixture.max_epochs: the rule follows high losses, also those that cannot be learnt.",
        "still": "In a run of less than T ln T steps all are drawn alike, whatever mixture.draws: raise the budget.",
        "swings": "Keep mixture.draws systematic and raise the batch size, so that a step tells more.",
        "behind": "If they matter, set mixture.max_epochs, so that tasks which cannot be learnt leave them draws.",
    }

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for the training losses."""
        return (TrainLosses(),)

    def init(self, tasks: TaskSizes) -> State:
        """Return no rewards, before the first turn; with the tasks' mean supervised tokens, for p that shares out tokens."""
        return {
            "rewards": torch.zeros(len(tasks.names), dtype=torch.float64),
            "turn": torch.tensor(1),
            "lengths": tasks.supervised / tasks.examples,
        }

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,)."""
        return exp3(state["rewards"], int(state["turn"]))

    def update(self, state: State, feedback: Feedback) -> State:
        """Reward what was drawn, and take the next turn."""
        if feedback.train_losses is None:
            return state
        rewards = rewarded(state["rewards"], feedback.train_losses, self.proportions(state))
        return {**state, "rewards": rewards, "turn": state["turn"] + 1}
