"""Standard errors of validation losses, by hand and by drawing the examples again and again."""

import math
import random

import pytest

from apportion.objectives.worst import REPORT_TAU
from apportion.runs.uncertainty import (
    OBJECTIVE_TAU,
    combined,
    errors_of_metrics,
    of_validation,
    ratio_variance,
    standard_error,
)


def test_equal_lengths_give_the_textbook_standard_error():
    losses = [1.0, 2.0, 4.0, 5.0]
    examples = {"ids": list("abcd"), "nll": [3 * loss for loss in losses], "supervised": [3] * 4}
    assert standard_error(examples) == pytest.approx(math.sqrt(sum((v - 3) ** 2 for v in losses) / 3 / 4))


def test_one_example_has_no_standard_error_and_takes_the_macro_with_it():
    tasks = {
        "a": {"ids": ["1", "2"], "nll": [1.0, 3.0], "supervised": [1, 1]},
        "b": {"ids": ["1"], "nll": [2.0], "supervised": [4]},
    }
    said = of_validation(tasks, {"a": 2.0, "b": 0.5}, {})
    assert said == {"examples": {"a": 2, "b": 1}, "se": {"a": 1.0, "b": None}, "macro_se": None}
    assert of_validation(tasks, {"a": 2.0, "b": 0.5}, {"a": 3.0})["target_se"] == 1.0
    assert of_validation(tasks, {"a": 2.0, "b": 0.5}, {"a": 3.0, "b": 1.0})["target_se"] is None


def test_the_error_of_targets_weighs_them_by_importance():
    tasks = {name: {"ids": ["1", "2"], "nll": [1.0, 3.0], "supervised": [1, 1]} for name in "abc"}
    tasks["c"] = {"ids": ["1"], "nll": [2.0], "supervised": [4]}
    said = of_validation(tasks, {"a": 2.0}, {"a": 3.0, "b": 1.0})
    assert said["target_se"] == pytest.approx(math.hypot(3, 1) / 4) and said["examples"] == {"a": 2, "b": 2, "c": 1}
    assert of_validation(tasks, {"a": 2.0}, {"a": 3.0, "c": 1.0})["target_se"] is None
    assert combined({}, {"a": 1.0}) is None


def test_the_error_is_what_other_draws_of_the_examples_would_show():
    random.seed(0)
    pool = [(n * random.gauss(2.0, 0.5), n) for n in random.choices(range(1, 30), k=20_000)]
    ratios, variances = [], []
    for _ in range(2_000):
        sums, tokens = zip(*random.sample(pool, 60), strict=True)
        ratios.append(sum(sums) / sum(tokens))
        variances.append(ratio_variance(sums, tokens))
    mean = sum(ratios) / len(ratios)
    spread = sum((r - mean) ** 2 for r in ratios) / len(ratios)
    assert sum(variances) / len(variances) == pytest.approx(spread, rel=0.1)


def test_the_error_of_the_targets_mean_is_by_importance_and_of_targets_alone():
    part = {"ids": ["1", "2"], "nll": [1.0, 3.0], "supervised": [1, 1]}
    wide = {"ids": ["1", "2"], "nll": [0.0, 4.0], "supervised": [1, 1]}
    said = of_validation({"a": part, "b": part, "c": wide}, {"a": 2.0}, {"b": 3.0, "c": 1.0})
    assert said["se"] == {"a": 1.0, "b": 1.0, "c": 2.0} and said["macro_se"] == 1.0
    assert said["target_se"] == pytest.approx(math.hypot(0.75 * 1.0, 0.25 * 2.0))


def test_errors_of_macro_worst_and_objective():
    errors = errors_of_metrics({"a": 1.0, "b": 3.0}, {"a": 0.3, "b": 0.4})
    share = math.exp(3) / (math.exp(3) + math.exp(1))
    assert errors["macro"] == pytest.approx(0.25) and errors["worst"] == 0.4
    assert errors["objective"] == pytest.approx(math.hypot(0.4 * share, 0.3 * (1 - share)))
    assert errors_of_metrics({"a": 1.0}, {}) == {"macro": None, "worst": None, "objective": None}
    assert errors_of_metrics({"a": None}, {"a": 0.1})["macro"] is None


def test_the_objective_is_the_reported_one():
    assert OBJECTIVE_TAU == REPORT_TAU
