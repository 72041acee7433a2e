"""Writes tables.md from result.json: what every method still knew, by budget, and what its step read.

python -m studies.kv_budgets.summarise
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Cell = dict[str, Any]


def tables(cells: list[Cell]) -> str:
    """Return Markdown tables, two for each task, model and length: scores and bytes, over the seeds that are there."""
    groups: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell["task"], cell["model"], cell["length"]].append(cell)
    parts = ["# KV budgets: tables"]
    for (task, model, length), found in sorted(groups.items()):
        metric = "accuracy" if task == "recall" else "perplexity"
        seeds = sorted({cell["seed"] for cell in found})
        named = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))} (range)"
        parts += [f"## {task}, {model}, {length} tokens: {metric} by B", f"{named}.", _table(found, metric, _score)]
        parts += [f"## {task}, {model}, {length} tokens: kB that a step reads", _table(found, "read_a_step", _read)]
    return "\n\n".join(parts) + "\n"


def _table(cells: list[Cell], metric: str, written: Any) -> str:  # noqa: ANN401 - of the values to a text
    budgets = sorted({cell["budget"] for cell in cells if cell["budget"] is not None})
    by_arm: dict[str, dict[int | None, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        by_arm[cell["arm"]][cell["budget"]].append(cell[metric])
    rows = ["| method | " + " | ".join(map(str, budgets)) + " |", "|---" * (len(budgets) + 1) + "|"]
    for arm, values in by_arm.items():
        whole = values.get(None)
        shown = [written(whole or values[budget]) if whole or budget in values else "-" for budget in budgets]
        rows.append(f"| {arm} | " + " | ".join(shown) + " |")
    return "\n".join(rows)


def _score(values: list[float]) -> str:
    mean, low, high = (
        f"{v:.3f}" if v < 10 else f"{v:.0f}" for v in (sum(values) / len(values), min(values), max(values))
    )
    return mean if len(values) == 1 else f"{mean} ({low}-{high})"


def _read(values: list[float]) -> str:
    return f"{sum(values) / len(values) / 1e3:.0f}"


if __name__ == "__main__":
    text = tables(json.loads((HERE / "result.json").read_text("utf-8"))["cells"])
    (HERE / "tables.md").write_text(text, "utf-8")
    print(text)
