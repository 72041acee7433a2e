"""What was asked of runs of reinforcement, in plain words, from their recipes and summaries."""

from __future__ import annotations

from typing import Any

from apportion.reports import words
from apportion.reports.asked import UNITS, settings
from apportion.reports.rl.arms import RlView
from apportion.reports.rl.verdict import budget_of
from apportion.runs import RunRecord

_APART = ("type", "start")


def asked(view: RlView) -> list[tuple[str, str]]:
    """Return (term, words) pairs: what it began with, each arm, tasks, budget, seeds, training, machine."""
    run = view.arms[0].shown
    starts = list(dict.fromkeys(start for each in view.runs if (start := each.start)))
    common = _common(view)
    pairs = [("Began with", words.listing(starts) or "not said")]
    if common and len(view.arms) > 1:
        pairs.append(("All arms", _said(common)))
    for arm in view.arms:
        own = {key: value for key, value in arm.shown.rl.items() if key not in common}
        pairs.append((f"Arm {arm.name}" if len(view.arms) > 1 else "Method", _method(arm.shown, own)))
    tasks = run.recipe.get("tasks")
    source = tasks.get("source") or tasks.get("path") if isinstance(tasks, dict) else tasks
    seeds = words.listing([str(seed) for seed in view.seeds], 8)
    pairs += [
        ("Tasks", str(source or "not said")),
        ("Budget", _budget(run)),
        ("Runs", f"{words.several(len(view.arms), 'arm')}, {words.several(len(view.seeds), 'seed')} ({seeds})"),
        ("Training", settings(run.recipe.get("training") or {}) or "the defaults"),
    ]
    device = (run.summary or {}).get("device")
    return [*pairs, ("Machine", str(device))] if device else pairs


def _common(view: RlView) -> dict[str, Any]:
    """Return what all arms' ``rl`` blocks have in common; nothing of one arm alone."""
    blocks = [arm.shown.rl for arm in view.arms]
    if len(blocks) < 2:
        return {}
    return {key: value for key, value in blocks[0].items() if all(block.get(key) == value for block in blocks)}


def _method(run: RunRecord, block: dict[str, Any]) -> str:
    said = _said(block)
    return run.method + (f": {said}" if said else "")


def _said(block: dict[str, Any]) -> str:
    parts = []
    for key, value in block.items():
        if key in _APART or value is None:
            continue
        parts.append(f"{key} {_plain(value)}")
    return "; ".join(parts)


def _plain(value: Any) -> str:  # noqa: ANN401 - a recipe's value
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inner(part)}" for name, part in value.items() if part is not None)
    return words.together([str(part) for part in value]) if isinstance(value, list | tuple) else str(value)


def _inner(value: Any) -> str:  # noqa: ANN401
    return f"({settings(value)})" if isinstance(value, dict) else str(value)


def _budget(run: RunRecord) -> str:
    budget = budget_of(run)
    if not budget:
        return str(run.recipe.get("budget", words.NONE))
    say = words.flops if budget["unit"] == "flops" else words.count
    return f"{say(budget['limit'])} {UNITS.get(budget['unit'], budget['unit'])} for each run"
