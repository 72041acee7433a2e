"""Two pools of Natural Instructions: as it is, and with two fifths of the examples off-target or corrupted."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

from apportion.tasks.splits import normalised, position
from studies.natural import TASKS, VALIDATION

DATA = Path("runs/weights/data")
# Categories that no pool has: what is learnt is tried on them too.
HELD_OUT = ("title-generation", "question-rewriting", "coreference-resolution", "word-semantics")
SPOILT = 0.4
Row = dict[str, str]


def write_pools() -> None:
    """Write ``natural``, ``spoilt`` and ``held-out``, one JSONL file a category, unless they are there."""
    if DATA.exists():
        return
    for file in sorted(TASKS.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        if file.stem in HELD_OUT:
            _write("held-out", file.stem, rows)
            continue
        _write("natural", file.stem, rows)
        _write("spoilt", file.stem, spoilt(rows, random.Random(file.stem)))


def spoilt(rows: list[Row], rng: random.Random) -> list[Row]:
    """Return the rows with added ones, a third each: answers of other prompts, another language, and near-copies.

    Added rows are kept only where the split trains on them: what is validated on stays clean.
    """
    wanted = round(len(rows) * SPOILT / (1 - SPOILT))
    few = rng.sample(rows, max(1, len(rows) // 50))
    letters = list(string.ascii_lowercase)
    other = str.maketrans(string.ascii_lowercase, "".join(rng.sample(letters, len(letters))))
    added: list[Row] = []
    while len(added) < wanted:
        kind, row = len(added) % 3, rng.choice(rows)
        if kind == 0:
            new = {"prompt": f"{row['prompt']} ", "completion": rng.choice(rows)["completion"]}
        elif kind == 1:
            new = {key: row[key].lower().translate(other) for key in ("prompt", "completion")}
        else:
            again = rng.choice(few)
            new = {**again, "prompt": f"{again['prompt']} {rng.randrange(10**6)}"}
        if position(normalised(new["prompt"])) >= VALIDATION:
            added.append(new)
    return rows + added


def _write(pool: str, category: str, rows: list[Row]) -> None:
    (DATA / pool).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps({key: row[key] for key in ("prompt", "completion")}) + "\n" for row in rows)
    (DATA / pool / f"{category}.jsonl").write_text(text)
