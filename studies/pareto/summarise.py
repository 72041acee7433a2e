"""Writes result.json and tables.md: every cell, who is on the front at which budget, and what the claim comes to."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from apportion.runs.pareto import front
from studies.pareto.arms import ARMS

HERE = Path(__file__).parent
MEASURES = {"in_domain": "in domain", "out_of_domain": "out of domain"}


def summarise(cells: list[dict[str, Any]]) -> None:
    """Write both files."""
    for cell in cells:
        cell["on_front"] = {}
    for suite in dict.fromkeys(cell["suite"] for cell in cells):
        for budget in dict.fromkeys(cell["budget"] for cell in cells if cell["suite"] == suite):
            here = [c for c in cells if (c["suite"], c["budget"]) == (suite, budget) and "refused" not in c]
            for measure in MEASURES:
                names = _front(here, measure)
                for cell in here:
                    cell["on_front"][measure] = cell["arm"] in names
    (HERE / "result.json").write_text(json.dumps({"cells": cells}, indent=1) + "\n", encoding="utf-8")
    (HERE / "tables.md").write_text(tables(cells), encoding="utf-8")


def _front(cells: list[dict[str, Any]], measure: str) -> list[str]:
    by_arm = {arm: [c for c in cells if c["arm"] == arm] for arm in dict.fromkeys(c["arm"] for c in cells)}
    # All arms of a budget cost what it allows, to within the last example: to a hundredth they cost the same.
    points = {
        arm: (float(f"{mean(total(c) for c in mine):.2g}"), mean(c[measure] for c in mine))
        for arm, mine in by_arm.items()
    }
    return list(front(points))


def total(cell: dict[str, Any]) -> float:
    """Return the FLOPs of all accounts."""
    return sum(cell["flops_by_account"].values())


def tables(cells: list[dict[str, Any]]) -> str:
    """Return one Markdown table a suite and budget."""
    lines: list[str] = []
    for suite, budget in dict.fromkeys((c["suite"], c["budget"]) for c in cells):
        here = [c for c in cells if (c["suite"], c["budget"]) == (suite, budget)]
        lines += [
            f"**{suite}, {budget:.1e} FLOPs in all**",
            "",
            "| arm | seeds | in domain (range) | out of domain (range) | training | supervised tokens | on the front |",
            "|---|---|---|---|---|---|---|",
        ]
        for arm in ARMS:
            mine = [c for c in here if c["arm"] == arm]
            ran = [c for c in mine if "refused" not in c]
            if mine and not ran:
                lines.append(f"| {arm} | {len(mine)} | refused: {mine[0]['refused']} | | | | |")
            if not ran:
                continue
            spread = [
                f"{mean(c[m] for c in ran):.3f} ({min(c[m] for c in ran):.3f}-{max(c[m] for c in ran):.3f})"
                for m in MEASURES
            ]
            part = mean(c["flops_by_account"]["train"] / total(c) for c in ran)
            ahead = ", ".join(said for m, said in MEASURES.items() if ran[0]["on_front"].get(m))
            tokens = f"{mean(c['trained_tokens'] for c in ran):,.0f}"
            lines.append(f"| {arm} | {len(ran)} | {' | '.join(spread)} | {part:.0%} | {tokens} | {ahead} |")
        lines.append("")
    return "\n".join(lines)
