"""The files of a run folder as types, and the JSON they are written in.

Every JSON object carries ``"schema": 1``; in ``history.jsonl`` each line does, so that any line can be read alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

SCHEMA = 1
"""The version this code writes and the only one it reads."""


class Spent(TypedDict):
    """What one account was charged: tokens by kind (``padded`` counts the padding too) and FLOPs.

    The last three are generated tokens; ledgers of older versions have none.
    """

    supervised: int
    processed: int
    padded: int
    flops: float
    thinking: NotRequired[int]
    answer: NotRequired[int]
    inserted: NotRequired[int]


class HistoryRecord(TypedDict):
    """One line of ``history.jsonl``; ``validation`` and what follows are there only where the record was validated.

    ``targets``, ``target`` and ``others`` are of runs with targets: each target's loss, their mean by importance, and the
    mean of the tasks that are no targets, None where all are. ``evaluation``: the score of each set of benchmarks, where
    they were due.
    ``loss``, ``macro``, ``worst``, ``objective`` and the values of ``validation`` are None where they were not finite.
    """

    step: int
    spent: dict[str, Spent]
    seconds: float
    loss: NotRequired[float | None]
    lr: NotRequired[float | None]
    mixture: NotRequired[dict[str, float]]
    n_eff: NotRequired[float | None]
    weights: NotRequired[dict[str, float | None]]
    validation: NotRequired[dict[str, float | None]]
    macro: NotRequired[float | None]
    worst: NotRequired[float | None]
    objective: NotRequired[float | None]
    targets: NotRequired[dict[str, float | None]]
    target: NotRequired[float | None]
    others: NotRequired[float | None]
    evaluation: NotRequired[dict[str, float]]


class BudgetRecord(TypedDict):
    """What might be spent: ``unit`` is ``supervised``, ``processed``, ``padded`` or ``flops``."""

    unit: str
    limit: float


class LedgerRecord(TypedDict):
    """``ledger.json``: the totals by account."""

    budget: BudgetRecord
    accounts: dict[str, Spent]


class TaskDraws(TypedDict):
    """What one task gave: ``size`` is the supervised tokens of its train split, ``supervised`` those drawn from it.

    ``weight``: the mean weight of its examples, None where none was drawn; there only in runs with weights.
    """

    supervised: int
    examples: int
    epochs: float
    size: int
    weight: NotRequired[float | None]


class MixtureRecord(TypedDict):
    """``mixture.json``: the last p, the p averaged over tokens, and what each task gave."""

    final: dict[str, float]
    token_averaged: dict[str, float]
    tasks: dict[str, TaskDraws]


class TaskExamples(TypedDict):
    """A task's reporting examples, one entry an example in each list: ``nll`` is summed over its supervised tokens."""

    ids: list[str]
    nll: list[float]
    supervised: list[int]


class ValidationRecord(TypedDict):
    """``validation.json``: the last validation, example by example; ``step`` is the optimizer step it was made after."""

    step: int
    tasks: dict[str, TaskExamples]


class MethodRecord(TypedDict):
    """What a summary says of a method: whether it is a plain baseline, and what to change where a sign is seen."""

    type: str
    plain: bool
    advice: dict[str, str]


def plain_json(value: Any) -> Any:  # noqa: ANN401 - JSON is any plain value
    """Return ``value`` with None for every float that JSON has no word for (NaN and the infinities)."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def dump_line(record: Mapping[str, Any]) -> str:
    """Return ``record`` as one line of JSON with its schema; floats keep their full precision."""
    return json.dumps({"schema": SCHEMA, **plain_json(record)}, allow_nan=False, ensure_ascii=False)


def dump_file(record: Mapping[str, Any]) -> str:
    """Return ``record`` as an indented JSON file with its schema."""
    return json.dumps({"schema": SCHEMA, **plain_json(record)}, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
