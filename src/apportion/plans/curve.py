"""How well a model answers against what it reads of its cache, and how long it thinks: methods by budgets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, KvLimit, ThinkingBudget
from apportion.caches import CACHES, CacheMethod
from apportion.decoding.engine import Answered
from apportion.decoding.requests import read_prompts, requests_of
from apportion.plans.answering import Answering
from apportion.plans.progress import Told
from apportion.runs import atomic_write_text
from apportion.runs.curve import CurveCell, CurveRecord
from apportion.runs.schema import dump_file
from apportion.runs.thinking import area
from apportion.thinking.tags import TagIds

# What tells a cell from the others: its name, the budget of the cache, and that of thinking where there is one.
_Place = tuple[str, str | None, tuple[int | None, ...]]


@dataclass(frozen=True)
class Curve:
    """A finished curve: its file and what that says."""

    path: Path
    record: CurveRecord


def curve_file(  # noqa: PLR0913
    answering: Answering,
    prompts: str | Path,
    out: str | Path,
    *,
    methods: Mapping[str, CacheMethod],
    limits: Sequence[KvLimit],
    budget: InferenceBudget,
    thinking: Sequence[ThinkingBudget] = (),
    tags: TagIds | None = None,
    examples: int | None = None,
    batch_size: int = 1,
    told: Told | None = None,
) -> Curve:
    """Answer the prompts densely, and by each method under each budget; what the file has is not answered again.

    The score is the share of answers that are the row's ``reference``, white space at their ends aside, where every row
    has one; else ``agreement``: how much of the dense answer, token by token, is written before the first difference.
    Where budgets of thinking are given every one of the above answers under each of them, and what is agreed with is the
    dense answer after thinking without a limit.

    Args:
        answering: The model.
        prompts: JSON Lines with ``prompt`` or ``messages``, and ``reference``.
        out: The JSON file.
        methods: By the names that the curve gives them.
        limits: Of cached tokens a decode step and KV head.
        budget: Of each request, but for these.
        thinking: Budgets of thinking; none, where nothing is to be thought.
        tags: Of thinking.
        examples: How many prompts, the first ones; all where None.
        batch_size: Requests at once.
        told: Called with how many cells of how many are done.

    Raises:
        ApportionError: Prompts that cannot be read, a budget that a method cannot keep, or a file that holds another curve.

    Cost: charged to `evaluate`, cell by cell in the file.
    """
    rows = read_prompts(Path(prompts))[:examples]
    judged = all("reference" in row for row in rows)
    wanted = _wanted(methods, limits, thinking, judged=judged)
    longest = max(thinking, key=lambda one: one.most or 0, default=None)
    requests = requests_of(
        rows, answering.tokenizer, budget.model_copy(update={"thinking": longest}), answering.positions, tags
    )
    settings = {
        "model": answering.name,
        "prompts": len(rows),
        "budget": budget.written(),
        "batch_size": batch_size,
        "metric": "exact" if judged else "agreement",
        **({} if tags is None else {"tags": asdict(tags)}),
        **{key: getattr(longest, key) for key in ("least", "ignore") if getattr(longest, key, 0)},
    }
    record = _held(Path(out), settings) or CurveRecord(settings=settings, device=answering.device, cells=[])
    # Made before any is answered: a budget that a method cannot keep is refused.
    engines = [answering.engine(one.method, one.of(budget), batch_size=batch_size, tags=tags) for one in wanted]
    known = [_place(cell) for cell in record["cells"]]
    dense: list[tuple[int, ...]] = [tuple(ids) for ids in record.get("dense", [])]
    for number, (one, engine) in enumerate(zip(wanted, engines, strict=True)):
        if told is not None:
            told(number, len(wanted))
        if one.place in known:
            continue
        answers = [answered for batch in engine.answer(requests) for answered in batch]
        if number == 0:
            dense = [answered.ids for answered in answers]
            record["dense"] = [list(ids) for ids in dense]
        scores = [_exact(a) if judged else _agreement(a.ids, d) for a, d in zip(answers, dense, strict=True)]
        record["cells"].append(_cell(one, scores, answers))
        if thinking:
            record["area"] = _areas(record["cells"])
        atomic_write_text(out, dump_file(record))
    if told is not None:
        told(len(wanted), len(wanted))
    return Curve(Path(out), record)


@dataclass(frozen=True)
class _Wanted:
    """A cell that is to be measured."""

    name: str
    method: CacheMethod
    limit: KvLimit | None
    thinking: ThinkingBudget | None

    @property
    def place(self) -> _Place:
        """What tells it from the others: name, budget of the cache, and that of thinking where there is one."""
        return self.name, _said(self.limit), () if self.thinking is None else (self.thinking.most,)

    def of(self, budget: InferenceBudget) -> InferenceBudget:
        """Return the budget of its requests."""
        return budget.model_copy(update={"kv": self.limit, "thinking": self.thinking})


def _wanted(
    methods: Mapping[str, CacheMethod], limits: Sequence[KvLimit], thinking: Sequence[ThinkingBudget], *, judged: bool
) -> list[_Wanted]:
    """Return the cells, the one first that others are compared with."""
    dense = CACHES.build("dense")
    found = [] if judged or not thinking else [_Wanted("dense", dense, None, ThinkingBudget(most=None))]
    for budget in thinking or (None,):
        found.append(_Wanted("dense", dense, None, budget))
        found += [_Wanted(name, method, limit, budget) for name, method in methods.items() for limit in limits]
    return list({one.place: one for one in reversed(found)}.values())[::-1]


def _place(cell: CurveCell) -> _Place:
    return cell["name"], cell["kv"], (cell["thinking"],) if "thinking" in cell else ()


def _areas(cells: Sequence[CurveCell]) -> dict[str, float]:
    """Return the area under each line of score against thinking tokens used, up to the largest budget of all lines."""
    lines: dict[tuple[str, str | None], list[tuple[float, float]]] = {}
    end = 0.0
    for cell in cells:
        lines.setdefault((cell["name"], cell["kv"]), []).append((cell["used"], cell["score"]))
        end = max(end, cell["used"], cell["thinking"] or 0)
    names = [name for name, _ in lines]
    found = {}
    for (name, kv), points in lines.items():
        if (under := area(points, end)) is not None:
            found[name if names.count(name) == 1 else f"{name}, {kv or 'all'}"] = under
    return found


def _exact(answered: Answered) -> float:
    return float(answered.text.strip() == str(answered.request.row["reference"]).strip())


def _agreement(ids: Sequence[int], dense: Sequence[int]) -> float:
    """Return how much of the dense answer is written before the first token that differs."""
    same = next((i for i, (a, b) in enumerate(zip(ids, dense, strict=False)) if a != b), min(len(ids), len(dense)))
    return same / len(dense) if dense else float(not ids)


def _cell(one: _Wanted, scores: Sequence[float], answers: Sequence[Answered]) -> CurveCell:
    served = [answered.served for answered in answers]
    mean, count = sum(scores) / len(scores), len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(count - 1, 1)
    whole = sum(served[1:], served[0])
    steps = max(whole.steps, 1)
    cell: CurveCell = {
        "name": one.name,
        "cache": CACHES.block(one.method, "cache"),
        "kv": _said(one.limit),
        "tokens": None if one.limit is None or one.limit.unit == "%" else one.limit.tokens(0, one.method.page_size),
        "score": mean,
        "error": math.sqrt(variance / count) if count > 1 else None,
        "read_a_step": whole.read / steps,
        "resident_peak": whole.resident_peak,
        "side_peak": whole.side_peak,
        "host_peak": whole.host_peak,
        "moved_a_step": whole.moved / steps,
        "sums": {**asdict(whole), "tokens": whole.tokens},
    }
    if one.thinking is not None:
        cell["thinking"] = one.thinking.most
        cell["used"], cell["inserted"] = whole.thinking / count, whole.inserted / count
        cell["forced"] = sum(answered.forced for answered in answers) / count
    return cell


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
