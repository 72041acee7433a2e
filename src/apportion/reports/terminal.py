"""The table at the end of a comparison, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from apportion.reports import glossary, words


def terminal_table(summary: Mapping[str, Any]) -> Table:
    """Return a comparison's summary as a table, the lowest macro loss first.

    The tokens column is the share of the best baseline's tokens that an arm spent until it first had that baseline's
    best macro loss; the range of the macro loss stands below its mean where there are several seeds. Summaries of older
    versions have no standard errors.
    """
    base = summary["best_baseline"]
    several = any(len(arm["runs"]) > 1 for arm in summary["arms"].values())
    title = ["Means over seeds, range of the macro loss below."] if several else []
    counts = [arm["examples"] for arm in summary["arms"].values() if arm.get("examples")]
    if counts:
        title.append(f"± is the standard error over {words.several(max(counts), 'validation example')}.")
    table = Table(title="\n".join(title) or None, title_justify="left", title_style="dim", pad_edge=False)
    table.caption, table.caption_justify, table.caption_style = glossary.SHORT, "left", "dim"
    table.add_column("arm", overflow="fold", max_width=16)
    for name in ("macro", "worst", "J"):
        table.add_column(name, justify="right", no_wrap=name != "macro")
    if base is not None:
        table.add_column(f"tokens to\n{_short(base)}", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for name in sorted(summary["arms"], key=lambda name: _macro(summary["arms"][name])):
        table.add_row(*_row(name, summary["arms"][name], base))
    return table


def _row(name: str, arm: Mapping[str, Any], base: str | None) -> list[str]:
    final = arm["final"]
    macro = _mean(final["macro"], words.loss)
    spread = words.span(final["macro"], words.loss) if final["macro"] else ""
    error = (arm.get("se") or {}).get("macro")
    macro += f" ±{words.loss(error)}" if error is not None else ""
    cells = [_plain(name), f"{macro}\n{spread}" if spread else macro]
    cells += [_mean(final[metric], words.loss) for metric in ("worst", "objective")]
    if base is not None:
        cells.append("100 %" if name == base else _share(arm, base))
    cells += [_mean(arm["total_flops"], words.flops), _mean(arm["seconds"], words.clock)]
    if arm["unfinished"]:
        cells[0] += f"\n{len(arm['unfinished'])} unfinished"
    return cells


def _share(arm: Mapping[str, Any], base: str) -> str:
    numbers = arm["tokens_to_best_of"][base]["macro"]
    if numbers is None:
        return "never" if arm["final"]["macro"] else words.NONE
    text = words.percent(numbers["mean"])
    return text if numbers["reached"] == numbers["of"] else f"{text}\n({numbers['reached']} of {numbers['of']})"


def _mean(numbers: Mapping[str, float] | None, say: Any) -> str:  # noqa: ANN401 - any of the functions in words
    return words.NONE if numbers is None else str(say(numbers["mean"]))


def _macro(arm: Mapping[str, Any]) -> float:
    return float(arm["final"]["macro"]["mean"]) if arm["final"]["macro"] else float("inf")


def _short(name: str) -> str:
    return _plain(name if len(name) <= 12 else name[:11] + "…")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # rich reads square brackets as style
