"""The table at the end of a comparison, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from apportion.reports import glossary, words


@dataclass(frozen=True)
class _Columns:
    """What arms are ranked ``first`` by, the other metrics by heading, accounts by heading, and what ± counts."""

    first: str
    others: Mapping[str, str]
    reach: Mapping[str, str]
    examples: str
    of: str
    glossary: str


_TOKENS, _FLOPS = {"tokens": "tokens_to_best_of"}, {"FLOPs": "flops_to_best_of"}
_TASKS = _Columns("macro", {"worst": "worst", "J": "objective"}, _TOKENS, "examples", "validation", glossary.SHORT)
_TARGETS = _Columns(
    "target", {"others": "others"}, _TOKENS | _FLOPS, "target_examples", "target", glossary.SHORT_OF_TARGETS
)


def terminal_table(summary: Mapping[str, Any]) -> Table:
    """Return a comparison's summary as a table, the lowest macro loss first, or target loss where there are targets.

    The tokens column is the share of the best baseline's tokens that an arm spent until it first had that baseline's
    best loss; with targets there is one of FLOPs too. The range of the loss stands below its mean where there are several
    seeds. Below the table it says which arms are on the front of that loss against all FLOPs. Summaries of older versions
    have no standard errors and no front.
    """
    base, arms = summary["best_baseline"], summary["arms"]
    columns = _TARGETS if any("target" in arm["final"] for arm in arms.values()) else _TASKS
    several = any(len(arm["runs"]) > 1 for arm in arms.values())
    title = [f"Means over seeds, range of the {columns.first} loss below."] if several else []
    counts = [arm[columns.examples] for arm in arms.values() if arm.get(columns.examples)]
    if counts:
        title.append(f"± is the standard error over {words.several(max(counts), f'{columns.of} example')}.")
    if base is not None and len(columns.reach) > 1:
        title.append(f"To best: spent to reach {_plain(base)}'s best target loss, as a share of its own.")
    table = Table(title="\n".join(title) or None, title_justify="left", title_style="dim", pad_edge=False)
    table.caption = "\n".join([columns.glossary, *_front(arms, columns.first)])
    table.caption_justify, table.caption_style = "left", "dim"
    table.add_column("arm", overflow="fold", max_width=16)
    for name in (columns.first, *columns.others):
        table.add_column(name, justify="right", no_wrap=name != columns.first)
    if base is not None:
        for reach in columns.reach:
            goal = "best" if len(columns.reach) > 1 else _short(base)
            table.add_column(f"{reach} to\n{goal}", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for name in sorted(arms, key=lambda name: _ended(arms[name], columns.first)):
        table.add_row(*_row(name, arms[name], base, columns))
    return table


def _front(arms: Mapping[str, Any], metric: str) -> list[str]:
    ended = sorted((arm["total_flops"]["mean"], _plain(name)) for name, arm in arms.items() if arm.get("on_front"))
    if len(arms) < 2 or not ended:
        return []
    return [f"on the front of {metric} loss against FLOPs: {words.together([name for _, name in ended])}"]


def _row(name: str, arm: Mapping[str, Any], base: str | None, columns: _Columns) -> list[str]:
    final, first = arm["final"], columns.first
    ended = _mean(final[first], words.loss)
    spread = words.span(final[first], words.loss) if final[first] else ""
    error = (arm.get("se") or {}).get(first)
    ended += f" ±{words.loss(error)}" if error is not None else ""
    cells = [_plain(name), f"{ended}\n{spread}" if spread else ended]
    cells += [_mean(final[metric], words.loss) for metric in columns.others.values()]
    if base is not None:
        shares = [arm[account].get(base) for account in columns.reach.values()]  # none of an arm against itself
        cells += ["100 %" if share is None else _share(arm, share[first], first) for share in shares]
    cells += [_mean(arm["total_flops"], words.flops), _mean(arm["seconds"], words.clock)]
    if arm["unfinished"]:
        cells[0] += f"\n{len(arm['unfinished'])} unfinished"
    return cells


def _share(arm: Mapping[str, Any], numbers: Mapping[str, float] | None, metric: str) -> str:
    if numbers is None:
        return "never" if arm["final"][metric] else words.NONE
    text = words.percent(numbers["mean"])
    return text if numbers["reached"] == numbers["of"] else f"{text}\n({numbers['reached']} of {numbers['of']})"


def _mean(numbers: Mapping[str, float] | None, say: Any) -> str:  # noqa: ANN401 - any of the functions in words
    return words.NONE if numbers is None else str(say(numbers["mean"]))


def _ended(arm: Mapping[str, Any], metric: str) -> float:
    return float(arm["final"][metric]["mean"]) if arm["final"][metric] else float("inf")


def _short(name: str) -> str:
    return _plain(name if len(name) <= 12 else name[:11] + "…")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # rich reads square brackets as style
