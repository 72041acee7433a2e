"""Reads what run.py finished and writes result.json and tables.md.

python -m studies.tokens_to_target.summarise
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from apportion.runs import read_run
from apportion.runs.curves import Curve, curve, share_to_best, tokens_spent
from studies.slices import recorded
from studies.tokens_to_target.cells import (
    ARMS,
    GROUPED,
    IMPORTANCE,
    STATIC,
    SWEEP,
    VARIANTS,
    Cell,
    ablation,
    best_rate,
    generated,
    groups,
    important,
    natural,
    sweep,
)
from studies.tokens_to_target.paper import KEYS, paper_results, paper_tables
from studies.tokens_to_target.suites import NOISE

HERE = Path(__file__).parent
Result = dict[str, Any]


def processed(history: Iterable[Any], metric: str) -> Curve:
    """Return (all training and steering tokens, loss) at each validation."""
    return [
        (float(sum(r["spent"][a]["processed"] for a in ("train", "meta") if a in r["spent"])), r[metric])
        for r in history
        if isinstance(r.get(metric), float)
    ]


def measured(group: dict[str, Cell]) -> list[Result]:
    """Return one result an arm of cells that differ in nothing but the arm."""
    runs = {arm: read_run(cell.folder) for arm, cell in group.items()}
    kinds: dict[str, Callable[[Any], Curve]] = {
        "tokens_to_macro": lambda run: curve(run.history, "macro"),
        "tokens_to_objective": lambda run: curve(run.history, "objective"),
        "all_tokens_to_macro": lambda run: processed(run.history, "macro"),
        "flops_to_macro": lambda run: curve(run.history, "macro", total_flops=True),
    }
    curves = {kind: {arm: make(run) for arm, run in runs.items()} for kind, make in kinds.items()}
    results = []
    for arm, cell in group.items():
        summary = runs[arm].summary
        drawn = json.loads((cell.folder / "mixture.json").read_text())["tasks"]
        examples = sum(task["examples"] for task in drawn.values())
        results.append(
            {
                "suite": cell.suite,
                "arch": cell.arch,
                "budget": cell.budget,
                "seed": cell.seed,
                "arm": arm,
                **{key: summary["final"][key] for key in ("macro", "worst", "objective")},
                **{
                    kind: {other: share_to_best(c[arm], c[other]) for other in group if other != arm}
                    for kind, c in curves.items()
                },
                "n_eff": summary["n_eff"],
                "flops": sum(account["flops"] for account in summary["spent"].values()),
                "noise_share": sum(drawn[name]["examples"] for name in NOISE) / examples
                if cell.suite == "noisy"
                else None,
                "supervised": tokens_spent(runs[arm].history[-1]),
            }
        )
    return results


def by_place() -> list[dict[str, Cell]]:
    """Return what is finished of every place and seed, by arm."""
    places: defaultdict[tuple[str, str, str, int], dict[str, Cell]] = defaultdict(dict)
    for cell in [*generated(), *natural()]:
        if cell.finished:
            places[cell.suite, cell.arch, cell.budget, cell.seed][cell.arm] = cell
    return list(places.values())


def finished() -> list[Result]:
    """Return the results of every place and seed of which all arms are done."""
    return [result for group in by_place() if len(group) == len(ARMS) for result in measured(group)]


def repeated() -> list[Result]:
    """Return the results of arms that were run again where the others were not."""
    again = [cell for group in by_place() if len(group) < len(ARMS) for cell in group.values()]
    results = []
    for cell in again:
        summary = read_run(cell.folder).summary
        flops = {account: spent["flops"] for account, spent in summary["spent"].items()}
        results.append(
            {
                **{key: getattr(cell, key) for key in ("suite", "arch", "budget", "seed", "arm")},
                **{key: summary["final"][key] for key in ("macro", "worst", "objective")},
                "flops": sum(flops.values()),
                "meta": flops["meta"],
            }
        )
    return results


def run_again(again: list[Result], before: list[Result]) -> str:
    """Return the arms that were run again as a table: by seed the final macro loss over uniform's, and the mean FLOPs.

    Uniform is of the same day where it was run again, else as recorded: on generated suites nothing of it has changed.
    """
    uniform = {(place(r), r["seed"]): r for r in (*before, *again) if r["arm"] == "uniform"}
    arms = [arm for arm in ARMS if arm != "uniform" and any(r["arm"] == arm for r in again)]
    if not arms:
        return ""
    lines = ["**Run again**, final macro loss over uniform's by seed; all FLOPs over uniform's", ""]
    lines += [f"| | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    for spot in dict.fromkeys(place(r) for r in again):
        cells = []
        for arm in arms:
            pairs = [(r, uniform[spot, r["seed"]]) for r in again if (place(r), r["arm"]) == (spot, arm)]
            ratios = ", ".join(f"{mine['macro'] / theirs['macro']:.3f}" for mine, theirs in pairs)
            cells.append(f"{ratios}; {mean(m['flops'] / t['flops'] for m, t in pairs):.2f}" if pairs else "not run")
        lines.append(f"| {spot} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided probability of so uneven a count of wins and losses if both were as likely."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(max(wins, losses), n + 1)) / 2**n if n else 1.0
    return min(1.0, 2 * tail)


def place(result: Result) -> str:
    """Return where a result was measured, seeds apart."""
    return f"{result['suite']} {result['arch']} {result['budget']}"


def summary_of(results: list[Result]) -> Result:
    """Return what the README says, by arm."""
    by: dict[tuple[str, int, str], Result] = {(place(r), r["seed"], r["arm"]): r for r in results}
    spots = sorted({(place(r), r["seed"]) for r in results})
    out: Result = {"learning_rates": {}, "arms": {}}
    for family in sorted({"natural" if r["suite"] == "natural" else "generated" for r in results}):
        out["learning_rates"][family] = best_rate(family)
    for arm in ARMS:
        entry: Result = {"places": {}}
        for spot in sorted({s for s, _ in spots}):
            seeds = [seed for s, seed in spots if s == spot]
            mine = [by[spot, seed, arm] for seed in seeds]
            uniform = [by[spot, seed, "uniform"] for seed in seeds]
            static = min(STATIC, key=lambda a, s=spot, k=seeds: mean(by[s, seed, a]["macro"] for seed in k))
            entry["places"][spot] = {
                "seeds": len(seeds),
                **{
                    key: {"mean": mean(values), "min": min(values), "max": max(values)}
                    for key in ("macro", "worst", "objective", "flops", "n_eff")
                    for values in [[r[key] for r in mine]]
                },
                "macro_over_uniform": mean(r["macro"] for r in mine) / mean(r["macro"] for r in uniform),
                "macro_over_best_static": mean(r["macro"] for r in mine)
                / mean(by[spot, seed, static]["macro"] for seed in seeds),
                "best_static": static,
                "noise_share": mean(r["noise_share"] for r in mine) if mine[0]["noise_share"] is not None else None,
                **{
                    kind: _reached(mine, kind, arm)
                    for kind in ("tokens_to_macro", "tokens_to_objective", "flops_to_macro")
                },
            }
        entry["against"] = {other: _wins(by, spots, arm, other) for other in ARMS if other != arm}
        out["arms"][arm] = entry
    return out


def _reached(mine: list[Result], kind: str, arm: str) -> Result:
    """Return, by other arm, the mean share over the seeds that got there, and how many did."""
    found: Result = {}
    for other in ARMS:
        if other != arm:
            shares = [r[kind][other] for r in mine if r[kind][other] is not None]
            found[other] = {"mean": mean(shares) if shares else None, "reached": len(shares), "of": len(mine)}
    return found


def _wins(by: dict[tuple[str, int, str], Result], spots: list[tuple[str, int]], arm: str, other: str) -> Result:
    """Count in how many places and seeds ``arm`` ends below ``other``."""
    out: Result = {}
    for key in ("macro", "objective", "worst"):
        wins = sum(by[*spot, arm][key] < by[*spot, other][key] for spot in spots)
        losses = sum(by[*spot, arm][key] > by[*spot, other][key] for spot in spots)
        out[key] = {"wins": wins, "losses": losses, "p": sign_test(wins, losses)}
    return out


def table(summary: Result) -> str:
    """Return the results as Markdown tables, one a place."""
    lines: list[str] = []
    spots = next(iter(summary["arms"].values()))["places"]
    for spot, head in spots.items():
        lines += [
            f"**{spot}**, {head['seeds']} seeds",
            "",
            "| arm | macro loss (range) | over uniform | worst | J | tokens to uniform's best J | to proportional's "
            "| FLOPs, all accounts | n_eff |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for arm, entry in summary["arms"].items():
            here = entry["places"][spot]
            macro = here["macro"]
            lines.append(
                f"| {arm} | {macro['mean']:.3f} ({macro['min']:.3f}-{macro['max']:.3f}) | {here['macro_over_uniform']:.2f} "
                f"| {here['worst']['mean']:.2f} | {here['objective']['mean']:.3f} "
                f"| {_share(here, 'uniform')} | {_share(here, 'proportional')} "
                f"| {here['flops']['mean']:.2g} | {here['n_eff']['mean']:.1f} |"
            )
        lines.append("")
    return "\n".join(lines)


def _share(here: Result, other: str) -> str:
    entry = here["tokens_to_objective"].get(other)
    if entry is None:
        return "100 %"
    if not entry["reached"]:
        return "never"
    some = "" if entry["reached"] == entry["of"] else f" ({entry['reached']} of {entry['of']})"
    return f"{100 * entry['mean']:.0f} %{some}"


def varied() -> list[Result]:
    """Return the final macro loss of each setting of the ablation and the sweep, on seeds that are not reported."""
    return [
        {
            "suite": cell.suite,
            "setting": cell.arm,
            "seed": cell.seed,
            "macro": read_run(cell.folder).summary["final"]["macro"],
            **by_importance(cell),
        }
        for cell in [*ablation(), *sweep(), *groups()]
        if cell.finished
    ]


def by_importance(cell: Cell) -> Result:
    """Return the final mean loss of the tasks that matter more, and of the others, on suites that have such."""
    if cell.suite not in GROUPED:
        return {}
    losses = read_run(cell.folder).history[-1]["validation"]
    chosen = important(cell.suite)
    return {
        "important": mean(value for name, value in losses.items() if name in chosen),
        "others": mean(value for name, value in losses.items() if name not in chosen),
    }


def grouped(found: list[Result]) -> str:
    """Return what importance does as a table: losses of the tasks that matter more and of the others, seed by seed."""
    names = ("uniform", *dict.fromkeys(cell.arm for cell in groups()))
    here = [r for r in found if r["setting"] in names and "important" in r]
    if not here:
        return ""
    suites = [suite for suite in GROUPED if any(r["suite"] == suite for r in here)]
    lines = [
        f"**A quarter of the tasks matters {IMPORTANCE:g} times as much**: final mean loss of these / of the others",
        "",
    ]
    lines += [f"| mixture | {' | '.join(suites)} |", "|---" * (len(suites) + 1) + "|"]
    for name in names:
        cells = [
            ", ".join(
                f"{r['important']:.3f} / {r['others']:.3f}" for r in here if (r["setting"], r["suite"]) == (name, suite)
            )
            for suite in suites
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ablations(found: list[Result]) -> str:
    """Return the ablation as a table: final macro loss over uniform's, seed by seed."""
    final = {(r["setting"], r["suite"], r["seed"]): r["macro"] for r in found}
    suites = list(dict.fromkeys(suite for _, suite, _ in final))
    lines = ["**One setting at a time**, final macro loss over uniform's by seed", ""]
    lines += [f"| ADAPT mixtures with | {' | '.join(suites)} |", "|---" * (len(suites) + 1) + "|"]
    for name, settings in (VARIANTS | SWEEP).items():
        cells = [
            ", ".join(
                f"{v / final['uniform', s, k]:.2f}"
                for (n, s, k), v in final.items()
                if (n, s) == (name, suite) and ("uniform", s, k) in final
            )
            for suite in suites
        ]
        lines.append(f"| {name}: `{settings}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files."""
    file = HERE / "result.json"
    results = recorded(file, "cells", finished(), ("suite", "arch", "budget", "seed", "arm"))
    settings = recorded(file, "ablation", varied(), ("suite", "setting", "seed"))
    again = recorded(file, "again", repeated(), ("suite", "arch", "budget", "seed", "arm"))
    uniform = {tuple(r[key] for key in KEYS[:4]): r for r in (*results, *again) if r["arm"] == "uniform"}
    paper = recorded(file, "paper", paper_results({key: r["macro"] for key, r in uniform.items()}), KEYS)
    summary = summary_of(results)
    found = {"cells": results, "again": again, "paper": paper, "ablation": settings, "summary": summary}
    file.write_text(json.dumps(found, indent=1) + "\n")
    tables = (
        table(summary),
        run_again(again, results),
        paper_tables(paper, uniform),
        ablations(settings),
        grouped(settings),
    )
    (HERE / "tables.md").write_text("\n".join(tables))
    print((HERE / "tables.md").read_text())


if __name__ == "__main__":
    main()
