"""How well answers match their references, each in 0..1, and the means over instances and tasks."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apportion._errors import ApportionError

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return ROUGE-L's F1 against the best of the references, 0..1; papers print 100 times that.

    By rouge-score with its stemmer, as Natural Instructions is scored. Its tokenizer knows the letters a-z and digits only:
    an answer in another script scores 0.

    Source: Lin, ROUGE, 2004.

    Args:
        prediction: The answer.
        references: All accepted answers, at least one.

    Raises:
        ApportionError: No references, or rouge-score is not installed.
    """
    scorer = _scorer()
    return max(float(scorer.score(reference, prediction)["rougeL"].fmeasure) for reference in _checked(references))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1 if the answer is one of the references, else 0.

    Both are lower-cased, their ASCII punctuation is taken out and white space comes down to single blanks, none at the ends,
    as Natural Instructions is scored; articles stay.

    Args:
        prediction: The answer.
        references: All accepted answers, at least one.

    Raises:
        ApportionError: No references.
    """
    return float(_normalised(prediction) in {_normalised(reference) for reference in _checked(references)})


@dataclass(frozen=True)
class Means:
    """Means of a metric: ``tasks`` each task's, ``macro`` the mean of these, ``mean`` over all instances."""

    tasks: dict[str, float]
    macro: float
    mean: float


def means(scores: Mapping[str, Sequence[float]]) -> Means:
    """Return the means of a metric by task, over tasks and over instances.

    Args:
        scores: By task, in the tasks' order, the score of each of its instances.

    Raises:
        ApportionError: No task, or a task without instances.
    """
    empty = [name for name, values in scores.items() if not len(values)]
    if empty or not scores:
        raise ApportionError(f"Nothing was evaluated on task '{empty[0]}'." if empty else "No task was evaluated.")
    tasks = {name: sum(values) / len(values) for name, values in scores.items()}
    whole = [value for values in scores.values() for value in values]
    return Means(tasks, sum(tasks.values()) / len(tasks), sum(whole) / len(whole))


def _checked(references: Sequence[str]) -> Sequence[str]:
    if isinstance(references, str):
        raise ApportionError(
            "The references of an answer are a list of texts, not one text: its letters would be taken."
        )
    if not len(references):
        raise ApportionError("An answer has no references to be scored against.")
    return references


def _normalised(text: str) -> str:
    return " ".join(text.lower().translate(_PUNCTUATION).split())


@lru_cache(maxsize=1)
def _scorer() -> Any:  # noqa: ANN401
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ApportionError("ROUGE-L needs rouge-score: pip install 'apportion[evaluation]'.") from None
    return RougeScorer(["rougeL"], use_stemmer=True)
