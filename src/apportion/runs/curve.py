"""``curve.json``: how well a run's model answers against what it reads of its cache, by method and budget."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

FILE = "curve.json"


class CurveCell(TypedDict):
    """One method under one budget: ``kv`` as it is written, None for everything, and ``tokens`` where it says so many.

    ``score`` is a mean over the prompts, ``error`` its standard error, None of a single one. Bytes are of one request:
    ``read_a_step`` and ``moved_a_step`` means over decode steps, the peaks on the device (``side_peak``: the part that is
    neither keys nor values) and elsewhere. ``sums`` are the fields of `apportion.budget.Served` over all requests.
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


class CurveRecord(TypedDict):
    """``settings`` are of all cells, ``dense`` the dense answers' tokens; the file is written anew after each cell."""

    settings: dict[str, Any]
    device: str
    cells: list[CurveCell]
    dense: NotRequired[list[list[int]]]
