"""Reads what run.py finished and writes result.json and tables.md.

python -m studies.tagi.summarise
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from transformers import AutoTokenizer

from apportion.models.loading import model_config
from apportion.plans.recipe import parse_recipe
from studies.slices import recorded
from studies.tagi.cells import DATA, Cell, cells, spent
from studies.tagi.controls import held_out
from studies.tagi.relative import Setting, relative_flops, standard_flops

HERE = Path(__file__).parent
# The controls of these arms are reported; of the others only what their own instructions give.
CONTROLLED = ("tagi",)
Row = dict[str, Any]


def rows(part: str) -> list[Row]:
    """Return a part's results, one an arm or control and seed."""
    found = []
    for cell in cells(part):
        if not cell.finished:
            continue
        scores = json.loads(cell.scores.read_text("utf-8"))
        for control, values in scores.items():
            if control in ("own", cell.arm):
                other = {"shuffled_loss": round(scores["shuffled"]["loss"], 4)} if control == "own" else {}
                found.append(_row(cell, cell.arm, values) | other)
            elif cell.arm in CONTROLLED:
                found.append(_row(cell, control, values))
    return found


def _row(cell: Cell, arm: str, values: dict[str, float]) -> Row:
    row: Row = {"arm": arm, "seed": cell.seed, "exact_match": round(values["exact_match"], 4)}
    row["loss"] = round(values["loss"], 4)
    if cell.part == "natural":
        row |= {"base": "llama", "rouge_l": round(values["rouge_l"], 4), "relative_flops": round(_relative(cell), 3)}
    return row | {"training_flops": float(f"{spent(cell.folder):.4g}")}


def _relative(cell: Cell) -> float:
    """Return the FLOPs of answering a held-out task, over those of a model that reads its instruction each time."""
    recipe = parse_recipe(cell.recipe())
    config = model_config(recipe.model, None)
    setting = _lengths(str(recipe.model.name))
    if not cell.plain:
        return float(relative_flops(config, recipe.model_kind(), setting))
    if cell.instructed:
        return 1.0
    # Without an instruction: the same arithmetic with a single token of one.
    alone = Setting(1, setting.input, setting.output, setting.instances)
    return float(sum(standard_flops(config, alone).values()) / sum(standard_flops(config, setting).values()))


@cache
def _lengths(model: str) -> Setting:
    """Return the mean lengths of the held-out tasks in tokens, and their instances a task."""
    tokenizer = AutoTokenizer.from_pretrained(model)

    def length(texts: Sequence[str]) -> int:
        return round(mean(len(tokenizer(text)["input_ids"]) for text in texts))

    questions, instructions = held_out(DATA["natural"] / "held_out")
    return Setting(
        length(list(instructions.values())),
        length([question.prompt for question in questions]),
        length([question.references[0] for question in questions]),
        len(questions) // len(instructions),
    )


def table(part: str, found: Sequence[Row]) -> str:
    """Return a part's results as a Markdown table: mean, standard deviation, and each seed."""
    scores = ["exact_match"] if part == "synthetic" else ["loss", "shuffled_loss", "rouge_l", "exact_match"]
    more = [] if part == "synthetic" else ["relative_flops"]
    heads = [f"{score.replace('_', ' ')} (by seed)" for score in scores] + more + ["training FLOPs"]
    lines = [f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in found):
        mine = [row for row in found if row["arm"] == arm]
        cells_of = [_spread([row[score] for row in mine if score in row]) for score in scores]
        cells_of += [f"{mean(row[key] for row in mine):.2f}" for key in more]
        lines.append(f"| {arm} | {' | '.join(cells_of)} | {mean(row['training_flops'] for row in mine):.2g} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" +- {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread} ({', '.join(f'{value:.3f}' for value in values)})"


def main() -> None:
    """Write the files."""
    file = HERE / "result.json"
    synthetic = recorded(file, "synthetic", rows("synthetic"), ("arm", "seed"))
    natural = recorded(file, "natural_instructions", rows("natural"), ("arm", "seed"))
    result = {"synthetic": synthetic, "natural_instructions": natural}
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    parts = [
        f"**{name}**\n\n{table(part, found)}\n"
        for name, part, found in (
            ("Synthetic programs, 12 held out", "synthetic", synthetic),
            ("Natural Instructions, 12 tasks held out", "natural", natural),
        )
        if found
    ]
    (HERE / "tables.md").write_text("\n".join(parts), encoding="utf-8")
    print("\n".join(parts))


if __name__ == "__main__":
    main()
