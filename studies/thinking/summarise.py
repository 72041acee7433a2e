"""Tables of result.json and waiting.json, into tables.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from apportion.runs.thinking import tokens_to
from studies.thinking.arms import ARMS, TASKS

HERE = Path(__file__).parent
Cell = dict[str, Any]


def spread(values: Sequence[float], digits: int) -> str:
    """Return the mean, and the range where there are several."""
    mean = sum(values) / len(values)
    several = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{several}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def points(cell: Cell) -> list[tuple[float, float]]:
    """Return a cell's line: tokens used and accuracy."""
    used, right = cell["thinking_used_by_budget"], cell["accuracy_by_budget"]
    return [(used[budget], right[budget]) for budget in right]


def by_arm(cells: Sequence[Cell], task: str) -> dict[str, list[Cell]]:
    """Return the cells of a task by arm, in the arms' order."""
    return {
        arm: sorted((c for c in cells if (c["task"], c["arm"]) == (task, arm)), key=lambda c: c["seed"])
        for arm in ARMS
        if any((c["task"], c["arm"]) == (task, arm) for c in cells)
    }


def curves(arms: dict[str, list[Cell]]) -> str:
    """Return accuracy at each budget."""
    budgets = list(next(iter(arms.values()))[0]["accuracy_by_budget"])
    rows = [
        [arm, str(len(cells)), *(f"{sum(c['accuracy_by_budget'][b] for c in cells) / len(cells):.2f}" for b in budgets)]
        for arm, cells in arms.items()
    ]
    return table(["arm", "seeds", *budgets], rows)


def sums(arms: dict[str, list[Cell]]) -> str:
    """Return what one number says of each arm."""

    def nine(cell: Cell) -> float:
        found = tokens_to(points(cell), 0.9)
        return float("nan") if found is None else found

    columns: list[tuple[str, Callable[[Cell], float], int]] = [
        ("area", lambda c: c["area"], 3),
        ("accuracy, own thinking", lambda c: c["own"]["accuracy"], 3),
        ("tokens of it", lambda c: c["own"]["used"], 1),
        ("tokens at 0.9", nine, 1),
    ]
    rows = [
        [arm, *(spread([of(cell) for cell in cells], digits) for _, of, digits in columns)]
        for arm, cells in arms.items()
    ]
    return table(["arm", *(name for name, _, _ in columns)], rows)


def costs(arms: dict[str, list[Cell]]) -> str:
    """Return what each arm took, means over seeds."""

    def mean(cells: Sequence[Cell], of: Callable[[Cell], float]) -> float:
        return sum(map(of, cells)) / len(cells)

    rows = [
        [
            arm,
            f"{mean(cells, lambda c: c['generated_tokens']) / 1000:.0f}k",
            f"{mean(cells, lambda c: c['steps']):.0f}",
            *(
                f"{mean(cells, lambda c, name=name: c['flops_by_account'].get(name, 0.0)):.2g}"  # type: ignore[misc]
                for name in ("generate", "train", "validation")
            ),
        ]
        for arm, cells in arms.items()
        if ARMS[arm] is not None
    ]
    return table(["arm", "generated tokens", "steps", "FLOPs to generate", "to train", "to measure"], rows)


def pairs(arms: dict[str, list[Cell]]) -> str:
    """Return arms beside others, seed by seed."""
    asked = [
        ("brpo-uniform", "grpo"),
        ("brpo-linear", "grpo"),
        ("brpo-base", "grpo"),
        ("grpo-length", "sft"),
        ("brpo-uniform", "brpo-uniform-group"),
        ("brpo-uniform", "brpo-uniform-own"),
        ("brpo-uniform", "brpo-uniform-none"),
        ("brpo-uniform", "grpo-length"),
    ]
    rows = []
    for one, other in asked:
        both = [(a, b) for a in arms.get(one, []) for b in arms.get(other, []) if a["seed"] == b["seed"]]
        if not both:
            continue
        area = [a["area"] - b["area"] for a, b in both]
        used = [a["own"]["used"] / b["own"]["used"] - 1 for a, b in both]
        right = [a["own"]["accuracy"] - b["own"]["accuracy"] for a, b in both]
        rows.append(
            [
                f"{one} less {other}",
                f"{sum(x > 0 for x in area)} of {len(area)}",
                spread(area, 3),
                spread([100 * x for x in used], 0) + " %",
                spread(right, 3),
            ]
        )
    return table(["arms", "area is larger in", "area", "own thinking tokens", "accuracy of own thinking"], rows)


def waiting() -> str:
    """Return what putting off an end did."""
    file = HERE / "waiting.json"
    cells = json.loads(file.read_text("utf-8"))["cells"] if file.exists() else []
    keys = list(dict.fromkeys((c["model"], c["temperature"], c["budget"]) for c in cells))
    rows = []
    for key in keys:
        found = [c for c in cells if (c["model"], c["temperature"], c["budget"]) == key]
        model, temperature, budget = key
        rows.append(
            [
                model,
                "greedy" if not temperature else "drawn",
                budget,
                str(len(found)),
                spread([c["accuracy"] for c in found], 3),
                spread([c["used"] for c in found], 1),
            ]
        )
    return table(["trained on", "decoding", "end", "seeds", "accuracy", "thinking tokens"], rows)


def main() -> None:
    """Write tables.md."""
    cells = json.loads((HERE / "result.json").read_text("utf-8"))["cells"]
    text = [
        "# Thinking budgets: tables",
        "",
        "Written by `python -m studies.thinking.summarise`. Ranges are over seeds.",
    ]
    for task in TASKS:
        arms = by_arm(cells, task)
        if not arms:
            continue
        examples = next(iter(arms.values()))[0]["examples"]
        text += [
            "",
            f"## {task}",
            "",
            f"Right answers at each budget of thinking, on {examples} problems.",
            "",
            curves(arms),
        ]
        text += ["", sums(arms), "", pairs(arms), "", costs(arms)]
    text += ["", "## Waiting", "", waiting(), ""]
    (HERE / "tables.md").write_text("\n".join(text), "utf-8")


if __name__ == "__main__":
    main()
