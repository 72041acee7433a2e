"""Rank classification: of a question's options, the one that the model finds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from apportion._errors import ApportionError

Option = TypeVar("Option")


@dataclass(frozen=True)
class Choice:
    """The option chosen by the mean over its tokens (``normalised``) and by their sum (``summed``), as indices."""

    normalised: int
    summed: int


@dataclass(frozen=True)
class Accuracy:
    """The share of questions answered rightly, 0..1, by each of the two rankings."""

    normalised: float
    summed: float


def rank(nll_sums: ArrayLike, lengths: ArrayLike) -> Choice:
    """Return the option with the least negative log-likelihood, a token and in sum; the first of equals.

    P3 is ranked by the mean (Sanh et al., arXiv 2110.08207); the sum is the likelihood of the whole option, and favours
    short ones.

    Args:
        nll_sums: (N,) each option's summed negative log-likelihood.
        lengths: (N,) over how many tokens, its end token included where that is supervised.

    Raises:
        ApportionError: No options, an option without tokens, or one whose likelihood is not a number.
    """
    sums, counts = (np.asarray(values, np.float64) for values in (nll_sums, lengths))
    if sums.shape != counts.shape or sums.ndim != 1 or not len(sums):
        raise ApportionError(f"Ranking needs a sum and a length for each option, not {sums.shape} and {counts.shape}.")
    if (counts < 1).any():
        raise ApportionError(f"Option {int(np.argmax(counts < 1))} has no tokens to be ranked by.")
    if np.isnan(sums).any():
        raise ApportionError(f"The likelihood of option {int(np.argmax(np.isnan(sums)))} is not a number.")
    return Choice(int(np.argmin(sums / counts)), int(np.argmin(sums)))


def rank_classification(
    model_nll: Callable[[list[Option]], tuple[ArrayLike, ArrayLike]],
    questions: Sequence[Sequence[Option]],
    answers: Sequence[int],
) -> Accuracy:
    """Return how often the right option ranks first.

    Args:
        model_nll: Takes options and returns their summed negative log-likelihoods and lengths, as
            `signals.losses.example_nll` does of a batch; called once, with all options of all questions.
        questions: Each question's options, in whatever form ``model_nll`` takes them.
        answers: Index of each question's right option.

    Cost: what ``model_nll`` costs, which the caller charges to ``evaluate``.

    Raises:
        ApportionError: No questions, an answer that is none of a question's options, or as `rank`.
    """
    if not questions or len(questions) != len(answers):
        raise ApportionError(
            f"Rank classification needs an answer to each question: {len(questions)} and {len(answers)}."
        )
    for k, (options, answer) in enumerate(zip(questions, answers, strict=True)):
        if not 0 <= answer < len(options):
            raise ApportionError(f"The answer to question {k} is option {answer}, of {len(options)} options from 0 on.")
    sums, lengths = (
        np.asarray(values) for values in model_nll([option for options in questions for option in options])
    )
    ends = np.cumsum([len(options) for options in questions])[:-1]
    choices = [rank(*pair) for pair in zip(np.split(sums, ends), np.split(lengths, ends), strict=True)]
    right = [(choice.normalised == a, choice.summed == a) for choice, a in zip(choices, answers, strict=True)]
    normalised, summed = np.mean(right, axis=0)
    return Accuracy(float(normalised), float(summed))
