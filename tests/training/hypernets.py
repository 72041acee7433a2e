"""Tiny recipes of hypernetworks on the playground, and bases for them that are trained a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apportion.plans.recipe import Recipe, overridden, parse_recipe
from apportion.plans.run import Run, run_recipe
from tests.training.runs import TINY

T5 = "model.config={model_type: t5, d_model: 16, d_kv: 4, d_ff: 32, num_layers: 1, num_heads: 4, dropout_rate: 0.1}"
SCRATCH = overridden(
    TINY,
    [
        "model.config.attention_dropout=0.1",
        "tasks={source: playground, instruction: apart, max_length: 64, names: [copy, reverse, upper]}",
        "budget=300",
        "kind={type: tagi, base: all, kl: 0, r: 2, code: 8, hidden: 8}",
    ],
)


def recipe(*assignments: str, start: dict[str, Any] | None = None) -> Recipe:
    return parse_recipe(overridden(SCRATCH if start is None else start, assignments))


def hyper(out: Path, *assignments: str, start: dict[str, Any] | None = None) -> Run:
    return run_recipe(recipe(*assignments, start=start), out)


def on(model: Path, base: Path | None = None) -> dict[str, Any]:
    """The recipe on a base model that stays as it is, which teaches itself."""
    named = {"name": str(base or model), "tokenizer": str(model)}
    block = SCRATCH["kind"] | {"base": "frozen", "kl": 1.0}
    return {**SCRATCH, "model": named, "kind": block}
