"""DoReMi: a reference, then a proxy that is weighed against it; its mean weights are the mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from apportion._config import plain as plain_values
from apportion.mixtures._found import SETTLED_ADVICE, Found
from apportion.mixtures._mixture import Mixture, Outcome, State, TaskSizes, Trial, uniform
from apportion.models.specs import ModelSpec

REFERENCE, PROXY = "reference", "proxy"


def normalised(weights: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return p by name: the tasks' mean weights over their sum, of one that was never drawn the least of the others'."""
    least = min(weights.values())
    found = {name: weights.get(name, least) for name in names}
    total = math.fsum(found.values())
    return {name: weight / total for name, weight in found.items()}


class Doremi(Mixture):
    """Mixture found by two trials: where a proxy stays furthest above a reference, more is drawn.

    What it optimises: the worst case over mixtures of the tasks' excess losses over the reference, in the proxy; the mixture
    is the mean over the proxy's training of that worst case.
    Shapes: T tasks; state holds p, (T,).
    Cost: the two trials, charged to `proxy`; the second is a third dearer by the reference's forward passes.
    References: Xie et al. 2023, DoReMi (arXiv 2305.10429), algorithm 1.
    Departures: the mean of a is over the examples drawn, and not over steps. Reference and proxy have the run's own model
    unless ``proxy`` names a smaller one. The paper's next rounds, with the mixture found as the reference's, are left out.
    Relations: the weights `doremi` are its second trial. It goes by the tasks that are trained on, whatever the targets.

    Attributes:
        trial: Share of the run's budget that each of the two may spend.
        proxy: A model block that replaces the run's in both; None for the run's own.
        eta: As for the weights `doremi`.
        smoothing: As for the weights `doremi`.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = SETTLED_ADVICE

    trial: float = Field(0.3, gt=0, le=1)
    proxy: ModelSpec | None = None
    eta: float = Field(1.0, gt=0)
    smoothing: float = Field(1e-3, ge=0, le=1)

    def ask(self, tasks: TaskSizes, folder: Path) -> Mapping[str, Trial]:
        """Ask for a run of uniform draws, and for one that is weighed against it."""
        if len(tasks.names) == 1:
            return {}
        # An absolute folder: the proxy's recipe must be the same wherever the run is resumed from.
        where = str((folder / REFERENCE).absolute())
        weights = {"type": "doremi", "reference": where, "eta": self.eta, "smoothing": self.smoothing}
        common: dict[str, Any] = {"mixture": {"type": "uniform", **self.drawing()}}
        if self.proxy is not None:
            common["model"] = plain_values(self.proxy)
        return {
            REFERENCE: Trial({**common, "weights": {"type": "uniform"}}, self.trial),
            PROXY: Trial({**common, "weights": weights}, self.trial),
        }

    def tell(self, tasks: TaskSizes, outcomes: Mapping[str, Outcome]) -> Found:
        """Return the mixture of the proxy's mean weights."""
        return Found(shares=normalised(outcomes[PROXY].weights, tasks.names), **self.drawing())

    def init(self, tasks: TaskSizes) -> State:
        """Return even shares, as long as nothing is known."""
        return {"p": uniform(len(tasks.names))}
