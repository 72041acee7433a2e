"""How well a model answers against what it reads of its cache: methods by budgets, with the dense line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, KvLimit, Served
from apportion.caches import CACHES, CacheMethod
from apportion.decoding.engine import Answered
from apportion.decoding.requests import read_prompts, requests_of
from apportion.plans.answering import Answering
from apportion.plans.progress import Told
from apportion.runs import atomic_write_text
from apportion.runs.curve import CurveCell, CurveRecord
from apportion.runs.schema import dump_file


@dataclass(frozen=True)
class Curve:
    """A finished curve: its file and what that says."""

    path: Path
    record: CurveRecord


def curve_file(
    answering: Answering,
    prompts: str | Path,
    out: str | Path,
    *,
    methods: dict[str, CacheMethod],
    limits: Sequence[KvLimit],
    budget: InferenceBudget,
    batch_size: int = 1,
    told: Told | None = None,
) -> Curve:
    """Answer the prompts densely, and by each method under each budget; what the file has is not answered again.

    The score is the share of answers that are the row's ``reference``, white space at their ends aside, where every row
    has one; else ``agreement``: how much of the dense answer, token by token, is written before the first difference.

    Args:
        answering: The model.
        prompts: JSON Lines with ``prompt`` or ``messages``, and ``reference``.
        out: The JSON file.
        methods: By the names that the curve gives them.
        limits: Of cached tokens a decode step and KV head.
        budget: Of each request, but for these.
        batch_size: Requests at once.
        told: Called with how many cells of how many are done.

    Raises:
        ApportionError: Prompts that cannot be read, a budget that a method cannot keep, or a file that holds another curve.

    Cost: charged to `evaluate`, cell by cell in the file.
    """
    rows = read_prompts(Path(prompts))
    requests = requests_of(rows, answering.tokenizer, budget, answering.positions)
    judged = all("reference" in row for row in rows)
    settings = {
        "model": answering.name,
        "prompts": len(rows),
        "budget": budget.written(),
        "batch_size": batch_size,
        "metric": "exact" if judged else "agreement",
    }
    begun: CurveRecord = {"settings": settings, "device": answering.device, "cells": []}
    record = _held(Path(out), settings) or begun
    for method in methods.values():
        for each in limits:  # refused before any is answered
            answering.engine(method, budget.model_copy(update={"kv": each}))
    wanted: list[tuple[str, CacheMethod, KvLimit | None]] = [
        ("dense", CACHES.build("dense"), None),
        *((n, m, limit) for n, m in methods.items() for limit in limits),
    ]
    wanted = list({(name, _said(limit)): (name, method, limit) for name, method, limit in wanted}.values())
    known = {(cell["name"], cell["kv"]) for cell in record["cells"]}
    dense: list[tuple[int, ...]] = [tuple(ids) for ids in record.get("dense", [])]
    for number, (name, method, limit) in enumerate(wanted):
        if told is not None:
            told(number, len(wanted))
        if (name, _said(limit)) in known:
            continue
        cell_budget = budget.model_copy(update={"kv": limit})
        engine = answering.engine(method, cell_budget, batch_size=batch_size)
        answers = [answered for batch in engine.answer(requests) for answered in batch]
        if name == "dense":
            dense = [answered.ids for answered in answers]
            record["dense"] = [list(ids) for ids in dense]
        scores = [_exact(a) if judged else _agreement(a.ids, d) for a, d in zip(answers, dense, strict=True)]
        record["cells"].append(_cell(name, method, limit, scores, [answered.served for answered in answers]))
        atomic_write_text(out, dump_file(record))
    if told is not None:
        told(len(wanted), len(wanted))
    return Curve(Path(out), record)


def _exact(answered: Answered) -> float:
    return float(answered.text.strip() == str(answered.request.row["reference"]).strip())


def _agreement(ids: Sequence[int], dense: Sequence[int]) -> float:
    """Return how much of the dense answer is written before the first token that differs."""
    same = next((i for i, (a, b) in enumerate(zip(ids, dense, strict=False)) if a != b), min(len(ids), len(dense)))
    return same / len(dense) if dense else float(not ids)


def _cell(
    name: str, method: CacheMethod, limit: KvLimit | None, scores: Sequence[float], served: Sequence[Served]
) -> CurveCell:
    mean, count = sum(scores) / len(scores), len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(count - 1, 1)
    whole = sum(served[1:], served[0])
    steps = max(whole.steps, 1)
    return {
        "name": name,
        "cache": CACHES.block(method, "cache"),
        "kv": _said(limit),
        "tokens": None if limit is None or limit.unit == "%" else limit.tokens(0, method.page_size),
        "score": mean,
        "error": math.sqrt(variance / count) if count > 1 else None,
        "read_a_step": whole.read / steps,
        "resident_peak": whole.resident_peak,
        "side_peak": whole.side_peak,
        "host_peak": whole.host_peak,
        "moved_a_step": whole.moved / steps,
        "sums": {**asdict(whole), "tokens": whole.tokens},
    }


def _said(limit: KvLimit | None) -> str | None:
    return None if limit is None else str(limit)


def _held(out: Path, settings: dict[str, Any]) -> CurveRecord | None:
    if not out.exists():
        return None
    try:
        held = json.loads(out.read_text("utf-8"))
    except (OSError, ValueError):
        held = None
    if (
        not isinstance(held, dict)
        or held.pop("schema", None) != 1
        or held.get("settings") != json.loads(json.dumps(settings))
    ):
        raise ApportionError(f"'{out}' is there already, and holds another curve: give a new file with --out.")
    return cast("CurveRecord", held)
