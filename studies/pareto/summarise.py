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
    for suite, budget in dict.fromkeys((c["suite"], c["budget"]) for c in cells):
        here = [c for c in cells if (c["suite"], c["budget"]) == (suite, budget)]
        names = ahead(here)
        for cell in here:
            cell["on_front"] = cell["arm"] in names
    (HERE / "result.json").write_text(json.dumps({"cells": cells}, indent=1) + "\n", encoding="utf-8")
    (HERE / "tables.md").write_text(tables(cells), encoding="utf-8")


def ahead(cells: list[dict[str, Any]]) -> list[str]:
    """Return the arms of one budget that no other beats both in and out of the domain, by their means over seeds.

    All cost what the budget allows, to within the last example. Means are over the seeds that every arm has.
    """
    ran = [c for c in cells if "refused" not in c]
    seeds = [{c["seed"] for c in ran if c["arm"] == arm} for arm in {c["arm"] for c in ran}]
    shared = set.intersection(*seeds)
    ran = [c for c in ran if c["seed"] in shared]
    by_arm = {arm: [c for c in ran if c["arm"] == arm] for arm in dict.fromkeys(c["arm"] for c in ran)}
    means = {arm: [mean(c[m] for c in mine) for m in MEASURES] for arm, mine in by_arm.items()}
    return list(front({arm: (inside, outside) for arm, (inside, outside) in means.items()}))


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
            tokens = f"{mean(c['trained_tokens'] for c in ran):,.0f}"
            said = "yes" if ran[0]["on_front"] else ""
            lines.append(f"| {arm} | {len(ran)} | {' | '.join(spread)} | {part:.0%} | {tokens} | {said} |")
        lines.append("")
    return "\n".join(lines)
