"""What each task gave a run, as shares, and the ``fixed`` mixture that draws alike from the start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apportion._yaml import dump_yaml
from apportion.runs.schema import MixtureRecord

_DIGITS = 6


@dataclass(frozen=True)
class TaskShare:
    """What one task gave.

    Attributes:
        name: The task's.
        size: Supervised tokens of its train split.
        tokens: Its share of the supervised tokens drawn, in [0, 1].
        rows: Its share of the examples drawn, in [0, 1].
        examples: How many were drawn.
        epochs: How often its train split was seen.
        weight: The mean weight of its examples; None in a run without weights.
    """

    name: str
    size: int
    tokens: float
    rows: float
    examples: int
    epochs: float
    weight: float | None = None


def shares_of(mixture: MixtureRecord) -> tuple[TaskShare, ...]:
    """Return the shares of all tasks, in the collection's order."""
    drawn = sum(task["examples"] for task in mixture["tasks"].values())
    return tuple(
        TaskShare(
            name,
            size=task["size"],
            tokens=mixture["token_averaged"][name],
            rows=task["examples"] / max(drawn, 1),
            examples=task["examples"],
            epochs=task["epochs"],
            weight=task.get("weight"),
        )
        for name, task in mixture["tasks"].items()
    )


def fixed_block(shares: Sequence[TaskShare], max_epochs: float | None = None) -> str:
    """Return the recipe's ``mixture`` block that gives these shares of the tokens, as YAML to paste.

    Args:
        shares: Of all tasks.
        max_epochs: The cap on epochs that the run's mixture had.
    """
    rounded = {share.name: round(share.tokens, _DIGITS) for share in shares}
    largest = max(rounded, key=lambda name: rounded[name])
    # What rounding took goes to the largest share, so that they sum to one.
    rounded[largest] = round(rounded[largest] + 1 - sum(rounded.values()), _DIGITS)
    block: dict[str, Any] = {"type": "fixed", "unit": "tokens", "shares": rounded}
    if max_epochs is not None:
        block["max_epochs"] = max_epochs
    return dump_yaml({"mixture": block})


def table(shares: Sequence[TaskShare]) -> str:
    """Return the shares as a Markdown table."""
    weighed = any(share.weight is not None for share in shares)
    names = ["task", "tokens in its train split", "share of tokens", "share of rows", "rows", "epochs"]
    rows = [[*names, "mean weight"] if weighed else names]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for share in shares:
        cells = [
            cell(share.name),
            f"{share.size:,}",
            f"{share.tokens:.2%}",
            f"{share.rows:.2%}",
            f"{share.examples:,}",
            f"{share.epochs:.2f}",
        ]
        if weighed:
            cells.append("" if share.weight is None else f"{share.weight:.3f}")
        rows.append(cells)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(text: str) -> str:
    """Return text that a cell of a Markdown table shows as it is."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text)
