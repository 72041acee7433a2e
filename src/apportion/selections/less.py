"""LESS: examples whose own step would go where the targets' gradients point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from apportion.models.specs import LoraSpec
from apportion.selections._selection import Targeted
from apportion.signals._pool import PoolSignal, Shown
from apportion.signals.pool_gradients import GradientProducts, ProjectedGradients


def influence(steps: Tensor, gradients: Tensor) -> Tensor:
    """Return, (n, V), the mean over each target's examples v of cos(R Gamma(x), R grad l(v)).

    Args:
        steps: Gamma(x), the optimizer's step by the gradient of x alone, projected by R, unit vectors (n, width).
        gradients: The mean of each target's projected gradients, unit vectors before the mean, (V, width).

    Source: LESS, Xia et al. 2024 (arXiv 2402.04333), definitions 3.1 and 3.2; its Adam step is
    m' / (sqrt(v') + eps), m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2, here with the corrections of the bias, which
    change no cosine but by eps. Summed over checkpoints by their learning rates, then the largest over targets.
    """
    return steps @ gradients.T


class Less(Targeted):
    """Keeps examples whose step, by the gradients of a short warm-up's checkpoints, would lower the targets' loss most.

    What it optimises: to first order, the targets' loss after one step on x, over the course of the warm-up.
    Shapes: n examples, V targets; projected gradients are ``projection`` wide.
    Cost: the warm-up, charged to `proxy`; for each of its ``epochs`` checkpoints a forward and backward pass over pool and
    targets, charged to `select`. That is as dear as ``epochs`` epochs of training on the pool, and the warm-up on top.
    References: LESS, Xia et al. 2024 (arXiv 2402.04333).
    Departures: the projection is a sparse one, each number in one place with a random sign, of the same mean and variance
    as LESS's dense one; a model from scratch is warmed up whole, for it knows nothing that adapters could go on from.
    Relations: `mixtures.adapt` reads the same products of whole tasks while it trains.

    Attributes:
        aggregate: Over the targets, as `Targeted` says; LESS takes the ``max``.
        warmup: Share of the pool's supervised tokens that the warm-up trains on, drawn at random.
        epochs: How often it sees them; a checkpoint after each.
        lora: Adapters of the warm-up; left out, the recipe's own, and for a trained model without any, of rank 16.
        projection: Width of the projected gradients; None reads products with each target's mean gradient instead, exact and
            without norms, which is cheaper where there are few targets.
        seed: Of the projection.
    """

    aggregate: Literal["mean", "max", "turns"] = "max"
    warmup: float = Field(0.05, gt=0, le=1)
    epochs: int = Field(4, ge=1)
    lora: LoraSpec | None = None
    projection: int | None = Field(8192, ge=16)
    seed: int = Field(0, ge=0, lt=2**20)

    def needs(self) -> tuple[PoolSignal, ...]:
        """Ask for the gradients."""
        if self.projection is None:
            return (GradientProducts(looks=self.epochs),)
        return (ProjectedGradients(looks=self.epochs, width=self.projection, seed=self.seed),)

    def score(self, shown: Shown) -> Tensor:
        """Return the influence on each target, (n, V)."""
        if shown.products is not None:
            return shown.products
        assert shown.embeddings is not None and shown.anchors is not None
        return influence(shown.embeddings, shown.anchors)

    def warm_up(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return the warm-up: a random part of the pool, ``epochs`` times, with a checkpoint after each."""
        adapters = self.lora.model_dump(mode="json") if self.lora else recipe.get("lora")
        if adapters is None and "name" in recipe["model"]:
            adapters = {"r": 16}
        values = {key: value for key, value in recipe.items() if key != "lora"}
        return {
            **values,
            **({} if adapters is None else {"lora": adapters}),
            "selection": {"type": "random", "limit": f"{100 * self.warmup:.6g}%"},
            "mixture": {"type": "proportional"},
            "weights": {"type": "uniform"},
            "budget": f"{100 * self.warmup * self.epochs:.6g}%",
            "validation": {**recipe["validation"], "every": 1 / self.epochs, "examples_per_task": 1, "half": "steer"},
            "checkpoints": "all",
        }
