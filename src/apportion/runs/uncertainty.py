"""How far a validation loss is off because it is measured on some examples and not on all: plain sums, no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from apportion.runs.schema import TaskExamples

OBJECTIVE_TAU = 1.0
"""tau of the reported objective J, as in `apportion.objectives.worst`, which run folders cannot import."""


def variance(values: Sequence[float]) -> float:
    """Return the sample variance of two values or more: `statistics.variance` in floats, which is many times as fast."""
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def ratio_variance(sums: Sequence[float], tokens: Sequence[int]) -> float | None:
    """Return the variance of sum(sums) / sum(tokens) over draws of the examples; None for fewer than two.

    m/(m - 1) sum_i (x_i - r n_i)^2 / (sum_i n_i)^2 for m examples with sums x_i over n_i tokens, r = sum x / sum n: the
    usual linear approximation for a ratio, since longer examples count more.
    """
    m, total = len(sums), sum(tokens)
    if m < 2 or not total:
        return None
    ratio = sum(sums) / total
    return m / (m - 1) * sum((x - ratio * n) ** 2 for x, n in zip(sums, tokens, strict=True)) / total**2


def standard_error(examples: TaskExamples) -> float | None:
    """Return the standard error of a task's token-weighted mean loss; None for a single example."""
    variance = ratio_variance(examples["nll"], examples["supervised"])
    return None if variance is None else math.sqrt(variance)


def errors_of_metrics(
    losses: Mapping[str, float | None], errors: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Return the standard errors of ``macro``, ``worst`` and ``objective`` from the tasks' losses and their errors.

    Tasks are independent; the worst task is taken as known, and J by its slope, the softmax of v / tau. None where a task
    that counts has a single example, whose error nobody knows.
    """
    if not losses or any(loss is None for loss in losses.values()):
        return {"macro": None, "worst": None, "objective": None}
    known = {task: float(loss) for task, loss in losses.items() if loss is not None}
    worst = max(known, key=lambda task: known[task])
    raw = {task: math.exp((loss - known[worst]) / OBJECTIVE_TAU) for task, loss in known.items()}
    return {
        "macro": combined(dict.fromkeys(known, 1.0), errors),
        "worst": errors.get(worst),
        "objective": combined(raw, errors),
    }


def combined(weights: Mapping[str, float], errors: Mapping[str, float | None]) -> float | None:
    """Return the standard error of a weighted mean of losses that are independent; None without one or where one is None."""
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    parts = [(share, errors.get(task)) for task, share in shares.items()]
    if not parts or any(error is None for _, error in parts):
        return None
    return math.sqrt(sum((share * error) ** 2 for share, error in parts if error is not None))


def of_validation(
    tasks: Mapping[str, TaskExamples], losses: Mapping[str, float | None], importance: Mapping[str, float]
) -> dict[str, object]:
    """Return what a summary's ``final`` says of its losses.

    ``examples`` and ``se`` by task and target, ``macro_se``, and where there are targets ``target_se``.

    Args:
        tasks: The examples by task and target.
        losses: Of each task.
        importance: Of each target, by name; empty where there are none.
    """
    errors = {task: standard_error(examples) for task, examples in tasks.items()}
    said: dict[str, object] = {
        "examples": {task: len(examples["ids"]) for task, examples in tasks.items()},
        "se": errors,
        "macro_se": errors_of_metrics(losses, errors)["macro"],
    }
    if importance:
        said["target_se"] = combined(importance, errors)
    return said
