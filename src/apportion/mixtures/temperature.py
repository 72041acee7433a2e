"""Temperature: between proportional and uniform."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from apportion.mixtures._mixture import Mixture, State, TaskSizes
from apportion.mixtures.proportional import By


def temperature(sizes: Tensor, t: float) -> Tensor:
    """Return p_i = n_i^(1/t) / sum_j n_j^(1/t), (T,), of sizes (T,); through logarithms, so no t overflows."""
    return torch.softmax(sizes.double().log() / t, 0)


class Temperature(Mixture):
    """Plain baseline: p_i ~ size^(1/t), so that small tasks are drawn more often than their size says.

    What it optimises: nothing; a compromise, tuned by hand.
    Shapes: T tasks; state holds p, (T,).
    Cost: none.
    References: Arivazhagan et al. 2019 (arXiv 1907.05019), temperature-based sampling.
    Relations: t = 1 is `proportional`, t -> infinity `uniform`.

    Attributes:
        t: Temperature, above zero.
        by: What a size is, `examples` or `supervised` tokens.
    """

    t: float = Field(2.0, gt=0, allow_inf_nan=False)
    by: By = "examples"

    def init(self, tasks: TaskSizes) -> State:
        """Return p."""
        return {"p": temperature(getattr(tasks, self.by), self.t)}
