"""The files of a reinforcement run that other runs do not have, as types, and the reader of its roll-outs.

A run is one of reinforcement if its recipe has an ``rl`` block: `RunRecord.reinforced`. Of the files that all runs have,
``recipe.yaml`` holds ``rl`` and ``start`` (the run whose model it began with), ``ledger.json`` is as always, and
``curve.json`` has the cells ``before`` and ``after``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from apportion.runs.schema import Spent

ROLLOUTS = "rollouts.jsonl"


class BudgetCurve(TypedDict):
    """A measurement at each thinking budget, entry by entry: ``budgets`` are in tokens, in their order.

    ``accuracy`` is a mean over prompts and ``error`` its standard error; ``used`` are mean thinking tokens, ``forced`` the
    share of answers whose thinking was cut off, ``area`` that under accuracy against ``used``. ``prompts``: how many there
    were, which an ``error`` of 0 needs beside it.
    """

    budgets: list[int]
    accuracy: list[float]
    error: list[float | None]
    used: list[float]
    forced: list[float]
    area: float | None
    prompts: NotRequired[int]


class ReinforceRecord(TypedDict):
    """A line of ``history.jsonl``: roll-outs since the record before, and ``curve`` where answers were measured.

    ``reward`` and ``correct`` are means over roll-outs and budgets, ``thinking`` the mean tokens of a roll-out's thinking,
    ``forced`` the share of them that was cut off at the largest budget. None of the first where nothing was rolled out yet.
    """

    step: int
    spent: dict[str, Spent]
    seconds: float
    lr: NotRequired[float | None]
    reward: NotRequired[float | None]
    correct: NotRequired[float | None]
    thinking: NotRequired[float | None]
    forced: NotRequired[float | None]
    mixture: NotRequired[dict[str, float]]
    n_eff: NotRequired[float | None]
    curve: NotRequired[BudgetCurve]


class Natural(TypedDict):
    """Answers without a limit on thinking."""

    accuracy: float
    used: float


class Standing(TypedDict):
    """What a summary's ``first`` and ``final`` say of the model before and after; keys are budgets in tokens, as text."""

    accuracy: dict[str, float]
    used: dict[str, float]
    forced: dict[str, float]
    area: float | None
    natural: NotRequired[Natural]


class ReinforceSummary(TypedDict):
    """``summary.json``: ``name`` is what arms go by, such as ``brpo, uniform``; ``generated`` counts tokens."""

    kind: str
    method: str
    name: str
    seed: int
    budget: dict[str, Any]
    spent: dict[str, Spent]
    seconds: float
    device: str
    versions: dict[str, str]
    first: Standing
    final: Standing
    generated: int
    steps: int


class Cut(TypedDict):
    """A roll-out's answers where its thinking was cut at ``budget`` tokens, and the reward of each.

    ``at``: how many characters of the thinking stand before the cut.
    """

    budget: int
    answers: list[str]
    rewards: list[float | None]
    at: NotRequired[int]


class Rollout(TypedDict):
    """A line of ``rollouts.jsonl``: one thinking, its own answer, and what was answered at each cut.

    ``forced``: whether the thinking was cut off at the largest budget; ``closed``: whether it ended by itself. ``tokens``
    are by kind. ``advantages`` are of the thinking's segments, each up to the cut of its place in ``cuts``.
    """

    step: int
    task: str
    prompt: str
    reference: str
    thinking: str
    answer: str
    reward: float | None
    forced: bool
    closed: bool
    tokens: dict[str, int]
    cuts: list[Cut]
    advantages: list[float]


def named(rl: Mapping[str, Any]) -> str:
    """Return what an ``rl`` block is called among arms, such as ``brpo, linear`` or ``grpo, length``.

    ``brpo`` is named with its prior, and with a baseline that is not its own; a reward that knows the length is named last.
    """
    kind, said = str(rl.get("type", "brpo")), []
    if kind == "brpo":
        prior, baseline = rl.get("prior"), rl.get("baseline")
        listed = isinstance(prior, list | tuple)
        said.append("/".join(f"{part:g}" for part in prior or ()) if listed else str(prior or ""))
        said.append("" if baseline in (None, kind) else f"baseline {baseline}")
    said.append("length" if (rl.get("rewards") or {}).get("length") else "")
    return ", ".join(part for part in (kind, *said) if part)
