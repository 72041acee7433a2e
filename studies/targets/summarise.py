"""Reads what run.py finished and writes result.json and tables.md.

python -m studies.targets.summarise
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from apportion.runs import read_run
from apportion.runs.curves import Curve, curve, share_to_best
from studies.slices import recorded
from studies.targets.arms import ARMS, drawn, rivals
from studies.targets.cells import EVERY, Cell, cells
from studies.targets.oracle import result_of
from studies.targets.places import DATA, OF_NATURAL, data_of, known, sources

HERE = Path(__file__).parent
KEYS = ("suite", "arch", "budget", "seed", "arm")
ORACLES = ("oracle", "oracle-phases")
# Regret is told only of suites where uniform is this much above the best that was found.
HEADROOM = 1.05
# What a source is drawn at the least where distributions are compared, so that the logarithm stays finite.
SMALLEST = 1e-3
Result = dict[str, Any]


def regret(loss: float, uniform: float, best: float) -> float | None:
    """Return (L - L*) / (L_uniform - L*): 0 at the oracle, 1 at uniform; None where there is little to win."""
    return (loss - best) / (uniform - best) if uniform >= HEADROOM * best else None


def kl(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    """Return KL(p || q) over the names of ``q``, each share raised to `SMALLEST` before both are made to sum to one."""
    left, right = ({name: max(d.get(name, 0.0), SMALLEST) for name in q} for d in (p, q))
    total_left, total_right = sum(left.values()), sum(right.values())
    return sum(x / total_left * math.log(x / total_left / (right[name] / total_right)) for name, x in left.items())


def measured(cell: Cell) -> Result:
    """Return what one run says by itself."""
    run = read_run(cell.folder)
    names, facts = sources(cell.suite), known(cell.suite)
    assert run.mixture is not None
    shares = drawn(run.mixture, names)
    last = run.history[-1]["mixture"]
    of_sources = sum(last[name] for name in names)
    return {
        **{key: getattr(cell, key) for key in KEYS},
        "target": cell.loss,
        "others": run.final["others"],
        "flops": run.total_flops,
        "shares": shares,
        "share_on_best": sum(shares[name] for name in facts["best"]) if shares and facts["best"] else None,
        # Where it ends, beside what uniform gives them: a method has to find out first.
        "share_on_bad": _ratio(last, facts["bad"], of_sources, len(names)) if of_sources > 0 else None,
    }


def _ratio(last: Mapping[str, float], bad: Sequence[str], total: float, count: int) -> float | None:
    """Return the last share of the bad sources over their uniform share; None where none is bad."""
    return sum(last[name] for name in bad) / total / (len(bad) / count) if bad else None


def curves(cell: Cell) -> dict[str, Curve]:
    """Return the curves of a run's target loss over its tokens and over all its FLOPs."""
    history = read_run(cell.folder).history
    return {
        "tokens_to_best_static": curve(history, "target"),
        "flops_to_best_static": curve(history, "target", total_flops=True),
    }


def best_static(found: Iterable[Result], arm: str) -> str | None:
    """Return the rival of an arm with the lowest mean target loss over seeds, of one suite, architecture and budget."""
    losses: defaultdict[str, list[float]] = defaultdict(list)
    for result in found:
        if result["arm"] in rivals(arm):
            losses[result["arm"]].append(result["target"])
    return min(losses, key=lambda arm: mean(losses[arm])) if losses else None


def least(found: Iterable[Result]) -> float | None:
    """Return L*: the lower mean loss of the two oracles over seeds; None where none has run."""
    losses: defaultdict[str, list[float]] = defaultdict(list)
    for result in found:
        if result["arm"] in ORACLES:
            losses[result["arm"]].append(result["target"])
    return min(map(mean, losses.values())) if losses else None


def compared(found: Sequence[Result], oracle: Mapping[str, float] | None) -> list[Result]:
    """Return the results of one suite, architecture and budget with what comparing them says.

    Args:
        found: As `measured`.
        oracle: The best static mixture that was found.
    """
    uniform = [result["target"] for result in found if result["arm"] == "uniform"]
    best = least(found)
    return [
        {
            **{key: value for key, value in result.items() if key != "shares"},
            "regret": None if best is None or not uniform else regret(result["target"], mean(uniform), best),
            "kl_to_oracle": None if oracle is None or not result["shares"] else kl(result["shares"], oracle),
        }
        for result in found
    ]


def places(suites: Sequence[str]) -> list[list[Cell]]:
    """Return the finished cells of each suite and architecture."""
    groups: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells([suite for suite in suites if (DATA / data_of(suite).name).exists()], list(ARMS)):
        if cell.finished:
            groups[cell.suite, cell.arch].append(cell)
    return list(groups.values())


def results(group: Sequence[Cell]) -> list[Result]:
    """Return the results of one suite and architecture."""
    alone = {(cell.arm, cell.seed): measured(cell) for cell in group}
    oracle = (result_of(group[0].suite) or {}).get("static", {}).get("mixture")
    found = compared(list(alone.values()), oracle)
    drawn_curves = {(cell.arm, cell.seed): curves(cell) for cell in group}
    for result in found:
        static = best_static(found, result["arm"]) or "none"
        mine, other = (drawn_curves.get((arm, result["seed"])) for arm in (result["arm"], static))
        for kind in ("tokens_to_best_static", "flops_to_best_static"):
            result[kind] = share_to_best(mine[kind], other[kind]) if mine and other else None
        result["best_static"] = static
    return found


def oracles(suites: Sequence[str]) -> list[Result]:
    """Return what the search found, one entry a suite and kind."""
    return [
        {"suite": suite, "kind": kind, **entry} for suite in suites for kind, entry in (result_of(suite) or {}).items()
    ]


def table(found: Sequence[Result]) -> str:
    """Return the results as Markdown tables, one a suite and architecture, means over seeds."""
    groups: defaultdict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in found:
        groups[result["suite"], result["arch"], result["budget"]].append(result)
    lines: list[str] = []
    for (suite, arch, budget), group in groups.items():
        lines += [f"**{suite}**, {arch}, {budget}; best static arms: {_bests(group)}", ""]
        lines += [
            "| arm | seeds | target (range) | others | regret | tokens to best static | FLOPs to best static "
            "| KL to oracle | share on best | bad, over uniform | FLOPs |",
            "|---" * 11 + "|",
        ]
        for arm in dict.fromkeys(result["arm"] for result in group):
            mine = [result for result in group if result["arm"] == arm]
            losses = [result["target"] for result in mine]
            lines.append(
                f"| {arm} | {len(mine)} | {mean(losses):.3f} ({min(losses):.3f}-{max(losses):.3f}) "
                f"| {_mean(mine, 'others')} | {_mean(mine, 'regret')} | {_reached(mine, 'tokens_to_best_static')} "
                f"| {_reached(mine, 'flops_to_best_static')} | {_mean(mine, 'kl_to_oracle')} "
                f"| {_mean(mine, 'share_on_best')} | {_mean(mine, 'share_on_bad')} | {_mean(mine, 'flops', '.2g')} |"
            )
        lines.append("")
    return "\n".join(lines)


def _bests(group: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(result["best_static"] for result in group))


def _mean(mine: Sequence[Result], key: str, form: str = ".2f") -> str:
    values = [result[key] for result in mine if result[key] is not None]
    return format(mean(values), form) if values else ""


def _reached(mine: Sequence[Result], key: str) -> str:
    values = [result[key] for result in mine if result[key] is not None]
    if not values:
        return "never"
    some = "" if len(values) == len(mine) else f" ({len(values)} of {len(mine)})"
    return f"{100 * mean(values):.0f} %{some}"


def overall(found: Sequence[Result]) -> str:
    """Return one row an arm over all suites, each counting once.

    Target loss over uniform's and over the best rival's that stands still, geometric means of the suites' ratios of means;
    FLOPs to that rival's best loss over the runs that got there; regret over suites with headroom.
    """
    by: defaultdict[tuple[str, str, str], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in found:
        by[result["suite"], result["arch"], result["budget"]][result["arm"]].append(result)
    lines = [
        "| arm | suites | over uniform | over best static (range) | FLOPs to best static | regret (range), suites "
        "| bad, over uniform |",
        "|---" * 7 + "|",
    ]
    for arm in ARMS:
        here = [arms for arms in by.values() if arm in arms]
        if not here:
            continue
        plain = [_ratio_of(arms, arm, "uniform") for arms in here]
        static = [_ratio_of(arms, arm, arms[arm][0]["best_static"]) for arms in here]
        told = [result for arms in here for result in arms[arm]]
        regrets = [mean(r["regret"] for r in arms[arm]) for arms in here if arms[arm][0]["regret"] is not None]
        lost = f"{mean(regrets):.2f} ({min(regrets):.2f} to {max(regrets):.2f}), {len(regrets)}" if regrets else ""
        lines.append(
            f"| {arm} | {len(here)} | {_geometric(plain):.2f} "
            f"| {_geometric(static):.2f} ({min(static):.2f}-{max(static):.2f}) "
            f"| {_reached(told, 'flops_to_best_static')} | {lost} | {_mean(told, 'share_on_bad')} |"
        )
    return "\n".join(lines) + "\n"


def _ratio_of(arms: Mapping[str, Sequence[Result]], arm: str, other: str) -> float:
    """Return the ratio of two arms' mean target losses, over the seeds that both have."""
    seeds = {r["seed"] for r in arms[arm]} & {r["seed"] for r in arms[other]}
    mine, theirs = (mean(r["target"] for r in arms[name] if r["seed"] in seeds) for name in (arm, other))
    return mine / theirs


def _geometric(ratios: Sequence[float]) -> float:
    return math.exp(mean(map(math.log, ratios)))


TITLES = {"Generated suites": False, "Natural Instructions": True}


def main() -> None:
    """Write the files."""
    file = HERE / "result.json"
    found = recorded(file, "cells", [r for group in places(EVERY) for r in results(group)], KEYS)
    search = recorded(file, "oracle", oracles(EVERY), ("suite", "kind"))
    file.write_text(json.dumps({"cells": found, "oracle": search}, indent=1) + "\n", encoding="utf-8")
    kinds = {title: [r for r in found if (r["suite"] in OF_NATURAL) == natural] for title, natural in TITLES.items()}
    parts = [f"**{title}**\n\n{overall(results)}" for title, results in kinds.items() if results]
    (HERE / "tables.md").write_text("\n".join([*parts, table(found)]), encoding="utf-8")
    print((HERE / "tables.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
