"""Recipes with a selection on five small tasks, and what their runs leave."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from apportion.plans.recipe import Recipe, overridden, parse_recipe
from apportion.plans.run import Run, run_recipe
from tests.training.runs import TINY

NAMES = ("copy", "reverse", "upper", "sort", "next")
BASE = overridden(
    TINY,
    [
        f"tasks={{source: playground, scale: 0.05, names: [{', '.join(NAMES)}], max_length: 96}}",
        "budget=20%",
        "training.per_device_eval_batch_size=64",
    ],
)
LESS = "selection={type: less, projection: 64, warmup: 0.2, epochs: 2, limit: 30%}"
PRODUCTS = "selection={type: less, projection: null, warmup: 0.2, epochs: 2, limit: 30%}"


def recipe(*assignments: str) -> Recipe:
    return parse_recipe(overridden(BASE, assignments))


def run(out: Path, *assignments: str) -> Run:
    return run_recipe(recipe(*assignments), out)


def rows(folder: Path, name: str = "selection.parquet") -> list[dict]:
    return pq.read_table(folder / name).to_pylist()


def kept(folder: Path, name: str = "selection.parquet") -> set[tuple[str, str]]:
    return {(row["task"], row["id"]) for row in rows(folder, name) if row["kept"]}


def accounts(folder: Path) -> dict:
    return json.loads((folder / "ledger.json").read_text())["accounts"]


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def total(folder: Path) -> float:
    return sum(account["flops"] for account in accounts(folder).values())
