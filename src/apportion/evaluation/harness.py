"""Benchmarks through lm-evaluation-harness: what they would take, and one after the other with what they took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion._errors import ApportionError
from apportion.budget.prices import Cost
from apportion.evaluation.aside import SEED, aside
from apportion.evaluation.catalogue import Benchmark
from apportion.evaluation.spec import EvaluateSpec
from apportion.runs.evaluation import Answer, Score, TaskScores

if TYPE_CHECKING:
    from apportion.evaluation.metered import Metered

# Draws of its bootstrap, where a metric has no formula for its standard error.
_BOOTSTRAP = 100_000


def price(benchmark: Benchmark, asker: Metered, spec: EvaluateSpec) -> Cost:
    """Return what a benchmark would take: exactly for what is scored, at its full length for what is written.

    Args:
        benchmark: It.
        asker: Of the model's shapes, dry.
        spec: How it is asked.

    Raises:
        ApportionError: It does not fit the model.
    """
    with aside(), _refusals(benchmark):
        for kind, requests in _requests(benchmark, asker, spec).items():
            getattr(asker, kind)(requests)
    spent = asker.tally.taken()
    return Cost(spent["supervised"], spent["processed"], spent["flops"])


def run(benchmark: Benchmark, asker: Metered, spec: EvaluateSpec) -> tuple[TaskScores, list[Answer]]:
    """Ask a model one benchmark; return its scores with what they took, and its answers.

    The same questions, in the same words and with the same scores as the harness's own command. Random generators are left
    as they were.

    Args:
        benchmark: It.
        asker: The model.
        spec: How it is asked.

    Raises:
        ApportionError: It does not fit the model.
    """
    from lm_eval.evaluator import evaluate

    started = time.monotonic()
    with aside(), _refusals(benchmark):
        _prepare(benchmark, spec)
        found: Any = evaluate(
            asker,
            {"tasks": {benchmark.name: benchmark.task}, "groups": {}},
            limit=spec.limit,
            bootstrap_iters=_BOOTSTRAP,
            apply_chat_template=spec.chat,
            fewshot_as_multiturn=spec.chat,
            confirm_run_unsafe_code=spec.run_code,
        )
    numbers, samples = found["results"][benchmark.name], found["samples"][benchmark.name]
    metrics = _metrics(numbers)
    metric = next(iter(metrics))
    name, _, chosen = metric.partition(",")
    scores: TaskScores = {
        "set": benchmark.set,
        "metric": metric,
        "higher_is_better": bool(found["higher_is_better"][benchmark.name].get(name, True)),
        "examples": int(found["n-samples"][benchmark.name]["effective"]),
        "metrics": metrics,
        "generates": benchmark.task.OUTPUT_TYPE == "generate_until",
        "settings": spec.settings,
        "spent": asker.tally.taken(),  # type: ignore[typeddict-item]
        "seconds": round(time.monotonic() - started, 3),
    }
    return scores, [_answer(sample, name) for sample in samples if sample["filter"] == (chosen or "none")]


def _prepare(benchmark: Benchmark, spec: EvaluateSpec) -> None:
    """Set what the harness's command sets: the shots that were asked for, else the task's own, and their seed."""
    task, own = benchmark.task, benchmark.task.get_config("num_fewshot")
    if own is None or (spec.shots is not None and own != 0):
        task.set_config(key="num_fewshot", value=spec.shots or 0)
    task.set_fewshot_seed(seed=SEED)


def _requests(benchmark: Benchmark, asker: Metered, spec: EvaluateSpec) -> dict[str, list[Any]]:
    from lm_eval.evaluator_utils import get_sample_size

    _prepare(benchmark, spec)
    task = benchmark.task
    task.build_all_requests(
        limit=get_sample_size(task, spec.limit),
        rank=0,
        world_size=1,
        apply_chat_template=spec.chat,
        fewshot_as_multiturn=spec.chat,
        chat_template=asker.apply_chat_template if spec.chat else None,
        tokenizer_name=asker.tokenizer_name if spec.chat else "",
    )
    found: dict[str, list[Any]] = {}
    for instance in task.instances:
        found.setdefault(instance.request_type, []).extend([instance] * instance.repeats)
    return found


def _metrics(numbers: Mapping[str, Any]) -> dict[str, Score]:
    """Return each metric of the harness's results, ``name,filter``, in their order."""
    found: dict[str, Score] = {}
    for key, value in numbers.items():
        name, comma, chosen = key.partition(",")
        if comma and not name.endswith("_stderr"):
            error = numbers.get(f"{name}_stderr,{chosen}")
            found[name if chosen == "none" else key] = {"value": _number(value), "error": _number(error)}
    return found


def _number(value: object) -> float | None:
    # The harness writes "N/A" where it knows none.
    return float(value) if isinstance(value, int | float | np.floating) and np.isfinite(value) else None


def _answer(sample: Mapping[str, Any], metric: str) -> Answer:
    """Return one example's answer: what was written, or which of the continuations was the likeliest."""
    arguments = [list(part) for part in sample["arguments"]]
    if isinstance(arguments[0][-1], str) and len(arguments[0]) == 2:
        choices = [part[1] for part in arguments]
        likely = max(range(len(choices)), key=lambda i: sample["filtered_resps"][i][0])
        answer = choices[likely]
        target = sample["target"]
        known = isinstance(target, int) and 0 <= target < len(choices)
        reference = choices[target] if known else str(target)
    else:
        answer, reference = str(sample["resps"][0][0]), _reference(sample["target"])
    return {
        "id": int(sample["doc_id"]),
        "prompt": str(arguments[0][0]),
        "reference": reference.strip(),
        "answer": answer.strip(),
        "score": _number(sample.get(metric)),
    }


def _reference(target: object) -> str:
    return " | ".join(map(str, target)) if isinstance(target, Sequence) and not isinstance(target, str) else str(target)


@contextmanager
def _refusals(benchmark: Benchmark) -> Iterator[None]:
    """Say in a sentence what the harness asserts of a task and a model."""
    try:
        yield
    except (AssertionError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ApportionError(f"The benchmark '{benchmark.name}' does not fit this model: {said}.") from error
