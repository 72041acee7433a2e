"""``curve.json``: how well a run's model answers against what it reads of its cache, or against how long it thinks."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

FILE = "curve.json"


class CurveCell(TypedDict):
    """One method under one budget: ``kv`` as it is written, None for everything, and ``tokens`` where it says so many.

    ``score`` is a mean over the prompts, ``error`` its standard error, None of a single one. Bytes are of one request:
    ``read_a_step`` and ``moved_a_step`` means over decode steps, the peaks on the device (``side_peak``: the part that is
    neither keys nor values) and elsewhere. ``sums`` are the fields of `apportion.budget.Served` over all requests.

    ``thinking`` is the budget of thinking tokens, None without a limit, and ``used`` the mean that was used of it;
    ``inserted`` the mean of tokens that nobody chose, ``forced`` the share of answers whose thinking was cut off. All four
    are absent where nothing was thought about.
    """

    name: str
    cache: dict[str, Any]
    kv: str | None
    tokens: int | None
    score: float
    error: float | None
    read_a_step: float
    resident_peak: int
    side_peak: int
    host_peak: int
    moved_a_step: float
    sums: dict[str, float]
    thinking: NotRequired[int | None]
    used: NotRequired[float]
    inserted: NotRequired[float]
    forced: NotRequired[float]


class CurveRecord(TypedDict):
    """``settings`` are of all cells, ``dense`` the dense answers' tokens; the file is written anew after each cell.

    ``area``: of each cell name's line of score against thinking tokens used, see `apportion.runs.thinking.area`.
    """

    settings: dict[str, Any]
    device: str
    cells: list[CurveCell]
    dense: NotRequired[list[list[int]]]
    area: NotRequired[dict[str, float]]
