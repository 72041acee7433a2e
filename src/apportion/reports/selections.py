"""What selections kept of the data, read from the summaries of the runs that made one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apportion.reports import words
from apportion.reports.tables import Cell
from apportion.reports.view import Arm, View

OF_THE_POOL = "A budget in percent is of the whole pool, not of what was kept of it."


def selecting(view: View) -> list[Arm]:
    """Return the arms whose shown run kept a part of the data only."""
    return [arm for arm in view.arms if _selection(arm)]


def kept(view: View) -> list[tuple[str, list[Cell]]]:
    """Return a row a task, the largest first: for each arm of `selecting` what it kept of the pool, and the share."""
    tasks = [_selection(arm).get("tasks") or {} for arm in selecting(view)]
    named = {task for found in tasks for task in found}
    order = [task for task in view.sizes if task in named]
    order += sorted(named - set(order))
    return [(task, [_cell(found.get(task)) for found in tasks]) for task in order]


def summed_up(view: View) -> list[tuple[Arm, str]]:
    """Return for each arm of `selecting` how much it kept in all, and its reasons."""
    return [(arm, _summed_up(_selection(arm))) for arm in selecting(view)]


def _selection(arm: Arm) -> dict[str, Any]:
    return dict((arm.shown.summary or {}).get("selection") or {})


def _cell(counts: Mapping[str, int] | None) -> Cell:
    if not counts:
        return Cell(words.NONE)
    share = counts["kept"] / counts["pool"] if counts["pool"] else None
    return Cell(f"{counts['kept']:,} of {counts['pool']:,}", words.percent(share))


def _summed_up(selection: Mapping[str, Any]) -> str:
    pool, kept = selection.get("pool") or {}, selection.get("kept") or {}
    parts = [
        f"{words.count(kept[key])} of {words.count(pool[key])} {what} ({words.percent(kept[key] / pool[key])})"
        for key, what in (
            ("examples", "examples"),
            ("supervised", "supervised tokens"),
            ("processed", "processed tokens"),
        )
        if key in kept and pool.get(key)
    ]
    reasons = [f"{reason} {n:,}" for reason, n in (selection.get("reasons") or {}).items()]
    said = f"kept {words.together(parts)}." if parts else ""
    said += f" Examples by reason: {words.listing(reasons, 8)}." if reasons else ""
    return f"{selection.get('type', 'selection')} {said}".strip()
