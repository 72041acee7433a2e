"""What every weighting is: a frozen config that turns what is measured about examples into weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from apportion._config import Config
from apportion._errors import ApportionError
from apportion.signals._records import AnchorsAsked, Seen
from apportion.signals._signal import ExampleSignal

EPS = 1e-8


def sigmoid_weights(scores: Tensor, tau: float) -> Tensor:
    """Return w = sigmoid(s / max(tau, eps)), in the shape of ``scores``.

    Absolute: an example's weight does not depend on what else is in its step. Source: ADAPT weights, arXiv 2605.05227,
    equation 11.
    """
    return torch.sigmoid(scores / max(tau, EPS))


def between(weights: Tensor) -> Tensor:
    """Return, in the shape of ``weights``, which of them are neither 0 nor 1 to single precision."""
    margin = torch.finfo(torch.float32).eps
    return (weights > margin) & (weights < 1 - margin)


def too_sharp(tau: float) -> ApportionError:
    """Return the error of weights that are all 0 or 1."""
    return ApportionError(
        f"All weights are 0 or 1: 'weights.tau' is {tau:g}, too small for their scores to tell examples apart; raise it "
        "(the default is 1.0)."
    )


class Weighting(Config):
    """How much each example of a step counts: w >= 0, never differentiated. One that is told nothing weighs all alike.

    Attributes:
        plain: True if nothing is measured for it, so that it is a baseline; a run's summary says so to reports.
        advice: What to change where a report sees that the weights are all ``alike``; it names keys of this method only.
    """

    plain: ClassVar[bool] = True
    advice: ClassVar[Mapping[str, str]] = {}

    def needs(self) -> tuple[ExampleSignal, ...]:
        """Return the signal that the weights follow, made anew, one at most; none for weights of one."""
        return ()

    def weigh(self, seen: Seen) -> Tensor:
        """Return w, (N,), of the N examples that the signal shows; constants to the backward pass."""
        raise NotImplementedError

    @property
    def divides_by_weights(self) -> bool:
        """Whether a step's loss is divided by the sum of its weights (a mean) and not by its examples."""
        return False

    def check_spread(self, distinct: int) -> None:
        """Refuse weights that tell no example from another.

        Args:
            distinct: How many of the last weights were neither 0 nor 1.

        Raises:
            ApportionError: None was, of a method for which that is a mistake.
        """


class Anchored(Weighting):
    """A weighting by likeness to anchors: validation examples that training should serve.

    Attributes:
        tau: Temperature of the sigmoid; small separates sharply, large weighs all near one half.
        normalise: Divide a step's loss by the sum of its weights (a mean) and not by its examples (the paper's sum).
        anchors: At most this many, spread evenly over the tasks' steering halves, or over ``files``.
        files: JSON Lines files, or folders of them, to take the anchors from in place of the tasks' own.
    """

    plain: ClassVar[bool] = False

    tau: float = Field(1.0, gt=0)
    normalise: bool = False
    anchors: int = Field(400, ge=1)
    files: tuple[str, ...] | None = None

    @field_validator("files")
    @classmethod
    def _some(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("name at least one file of anchors, or leave the key out")
        return value

    @property
    def anchors_asked(self) -> AnchorsAsked:
        """What `anchors` and `files` say, for a signal."""
        return AnchorsAsked(self.anchors, self.files)

    @property
    def divides_by_weights(self) -> bool:
        """As ``normalise`` says."""
        return self.normalise

    def check_spread(self, distinct: int) -> None:
        """Refuse weights that are all 0 or 1.

        Raises:
            ApportionError: ``tau`` is too small.
        """
        if not distinct:
            raise too_sharp(self.tau)
