"""Measures what a mixture needs and moves its state, and the objective's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from apportion.mixtures._mixture import Mixture, Outcome, TaskSizes
from apportion.objectives._objective import Objective
from apportion.objectives.curves import finite_losses
from apportion.signals._records import Asking, Bench, Feedback, Moment
from apportion.signals._signal import TaskSignal
from apportion.tasks.batches import Batch
from apportion.training.part import Done
from apportion.training.runner import Runner


class MixtureRunner(Runner[TaskSignal]):
    """Feeds one mixture while it trains.

    Args:
        mixture: The method.
        objective: What it is steered toward.
        sizes: The tasks' sizes.
        bench: What its signals measure with; everything measured is charged to the bench's ledger.
    """

    name = "mixture"

    def __init__(self, mixture: Mixture, objective: Objective, sizes: TaskSizes, bench: Bench) -> None:
        super().__init__(mixture.needs(), bench)
        self.mixture, self.objective, self._sizes = mixture, objective, sizes
        self.state = mixture.init(sizes)
        self.objective_state = objective.init(bench.targets.importance)

    def tell(self, outcomes: Mapping[str, Outcome]) -> None:
        """Train with what the mixture makes of how its trials ended, by their names; before the first step."""
        self.mixture = self.mixture.tell(self._sizes, outcomes)
        self.state = self.mixture.init(self._sizes)

    @property
    def p(self) -> Tensor:
        """The mixture now, (T,) float64."""
        return self.mixture.proportions(self.state)

    def before_step(self, moment: Moment) -> None:
        """Measure what is due before a step is drawn, and move the mixture by it."""
        asking = Asking(lambda: self.objective.at(self.objective_state), lambda: self.mixture.rates(self.state))
        for signal in self.signals:
            self._take(signal.before_step(moment, asking))

    @contextmanager
    def during(self, model: nn.Module, batch: Batch, lr: float) -> Iterator[None]:
        """Wrap one micro-batch by every signal."""
        with ExitStack() as stack:
            for signal in self.signals:
                stack.enter_context(signal.during(model, batch, lr))
            yield

    def rescale(self, factor: Tensor) -> None:
        """Take note that this step's gradient was scaled after its backward passes."""
        for signal in self.signals:
            signal.rescale(factor)

    def after_step(self, done: Done) -> None:
        """Move the mixture by what the step itself told."""
        for signal in self.signals:
            self._take(signal.after_step())

    def _take(self, feedback: Feedback | None) -> None:
        if feedback is None:
            return
        if feedback.target_losses is not None:
            losses = finite_losses(feedback.target_losses)
            self.objective_state = self.objective.update(self.objective_state, losses, feedback.progress)
        self.state = self.mixture.update(self.state, feedback)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs."""
        return {"mixture": dict(self.state), "objective": dict(self.objective_state), **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self.state, self.objective_state = state["mixture"], state["objective"]
        super().load_state_dict(state, device)
