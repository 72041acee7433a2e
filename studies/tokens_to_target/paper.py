"""The paper's plain method as an arm, and its sweeps: what is run, and what came of it as entries and a table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from apportion.runs import read_run
from apportion.runs.curves import curve, first_reach
from studies.tokens_to_target.cells import NATURAL, SEEDS, Cell
from studies.tokens_to_target.suites import NOISE, SUITES

Result = dict[str, Any]
TAUS, LAMBDAS = (0.1, 0.3, 1.0), (0.0, 1e-4, 1e-3, 1e-2)
TAU, LAMBDA = 1.0, 1e-3
ARM = "adapt-paper"
# The paper leaves the step and its size open: a plain step, of the best of these sizes on the playground, seed 100.
SIZES, SIZE = (1.0, 3.0, 10.0, 30.0, 100.0), 10.0
SWEPT, SWEPT_SEEDS = ("playground", "noisy"), range(3)
KEYS = ("suite", "arch", "budget", "seed", "arm")


def method(tau: float = TAU, entropy: float = LAMBDA, size: float = SIZE) -> dict[str, Any]:
    """Return the plain method's keys, exact by `forward` once in every hundredth of the budget."""
    return {
        "type": "adapt",
        "estimator": "forward",
        "refresh": "1%",
        "examples_per_task": 2,
        "step": "plain",
        "learning_rate": size,
        "prior": 0.0,
        "memory": 1.0,
        "floor": 0.0,
        "entropy": entropy,
        "objective": {"type": "worst", "tau": tau},
    }


def _cell(suite: str, arch: str, budget: str, seed: int, arm: str, settings: dict[str, Any]) -> Cell:
    return Cell(suite, arch, budget, arm, seed, tuple(settings.items()))


def paper_tuning() -> list[Cell]:
    """Every size of the step, on the seed that nothing is reported of."""
    return [_cell("playground", "llama", "120k", 100, f"{ARM}-size-{size:g}", method(size=size)) for size in SIZES]


def paper_generated() -> list[Cell]:
    """The arm on every generated suite."""
    return [_cell(suite, "llama", "120k", seed, ARM, method()) for seed in SEEDS["generated"] for suite in SUITES]


def paper_sweep() -> list[Cell]:
    """The paper's tau and lambda, all pairs but the arm's own."""
    return [
        _cell(suite, "llama", "120k", seed, f"{ARM}-tau-{tau:g}-lambda-{entropy:g}", method(tau, entropy))
        for seed in SWEPT_SEEDS
        for tau in TAUS
        for entropy in LAMBDAS
        for suite in SWEPT
        if (tau, entropy) != (TAU, LAMBDA)
    ]


def paper_natural() -> list[Cell]:
    """The arm on Natural Instructions."""
    return [
        _cell("natural", arch, budget, seed, ARM, method()) for seed in SEEDS["natural"] for arch, budget in NATURAL
    ]


def paper_results(uniform: dict[tuple[Any, ...], float]) -> list[Result]:
    """Return what is finished, each run against uniform's recorded final macro loss of the same place and seed.

    Args:
        uniform: That loss by (suite, arch, budget, seed).
    """
    results = []
    for cell in [*paper_tuning(), *paper_generated(), *paper_sweep(), *paper_natural()]:
        if not cell.finished:
            continue
        run = read_run(cell.folder)
        flops = {account: spent["flops"] for account, spent in run.summary["spent"].items()}
        settings = dict(cell.settings)
        goal = uniform.get((cell.suite, cell.arch, cell.budget, cell.seed))
        points = curve(run.history, "macro")
        reached = None if goal is None else first_reach(points, goal)
        drawn = run.mixture["tasks"]
        examples = sum(task["examples"] for task in drawn.values())
        results.append(
            {
                **{key: getattr(cell, key) for key in KEYS},
                "tau": settings["objective"]["tau"],
                "lambda": settings["entropy"],
                "size": settings["learning_rate"],
                **{key: run.summary["final"][key] for key in ("macro", "worst", "objective")},
                "flops": sum(flops.values()),
                "meta": flops["meta"],
                "tokens_to_uniforms_last": None if reached is None else reached / points[-1][0],
                "n_eff": run.summary["n_eff"],
                "shares": [
                    min(t["examples"] for t in drawn.values()) / examples,
                    max(t["examples"] for t in drawn.values()) / examples,
                ],
                "noise_share": sum(drawn[name]["examples"] for name in NOISE) / examples
                if cell.suite == "noisy"
                else None,
            }
        )
    return results


def _against(mine: Sequence[Result], uniform: dict[tuple[Any, ...], Result]) -> tuple[list[float], float]:
    pairs = [(r, uniform[r["suite"], r["arch"], r["budget"], r["seed"]]) for r in mine]
    return [r["macro"] / u["macro"] for r, u in pairs], mean(r["flops"] / u["flops"] for r, u in pairs)


def paper_tables(found: Sequence[Result], uniform: dict[tuple[Any, ...], Result]) -> str:
    """Return the arm's table and the sweep's: final macro loss over uniform's by seed, or the mean over seeds."""
    lines = ["**The paper's plain method**, final macro loss over uniform's by seed", ""]
    lines += ["| place | by seed | mean | FLOPs, all accounts | tokens to uniform's last loss | shares | noise |"]
    lines += ["|---" * 7 + "|"]
    arms = [r for r in found if r["arm"] == ARM]
    for spot in dict.fromkeys((r["suite"], r["arch"], r["budget"]) for r in arms):
        mine = sorted((r for r in arms if (r["suite"], r["arch"], r["budget"]) == spot), key=lambda r: r["seed"])
        ratios, flops = _against(mine, uniform)
        there = [r["tokens_to_uniforms_last"] for r in mine if r["tokens_to_uniforms_last"] is not None]
        reached = f"{100 * mean(there):.0f} % ({len(there)} of {len(mine)})" if there else f"never (of {len(mine)})"
        low, high = (mean(r["shares"][side] for r in mine) for side in (0, 1))
        noise = f"{100 * mean(r['noise_share'] for r in mine):.1f} %" if mine[0]["noise_share"] is not None else ""
        lines.append(
            f"| {' '.join(spot)} | {', '.join(f'{x:.3f}' for x in ratios)} | {mean(ratios):.3f} | {flops:.2f} "
            f"| {reached} | {low:.3f}-{high:.3f} | {noise} |"
        )
    return "\n".join([*lines, "", *_sweep_lines(found, uniform)]) + "\n"


def _sweep_lines(found: Sequence[Result], uniform: dict[tuple[Any, ...], Result]) -> list[str]:
    lines = ["**Its tau and lambda**, the same by seed, and n_eff of all draws", ""]
    lines += [f"| tau, lambda | {' | '.join(SWEPT)} |", "|---" * (len(SWEPT) + 1) + "|"]
    for tau in TAUS:
        for entropy in LAMBDAS:
            row = []
            for suite in SWEPT:
                mine = [
                    r
                    for r in found
                    if (r["suite"], r["tau"], r["lambda"], r["size"]) == (suite, tau, entropy, SIZE)
                    and r["seed"] in SWEPT_SEEDS
                ]
                mine.sort(key=lambda r: r["seed"])
                said = ", ".join(f"{x:.3f}" for x in _against(mine, uniform)[0]) if mine else "not run"
                row.append(said + (f"; {mean(r['n_eff'] for r in mine):.1f}" if mine else ""))
            lines.append(f"| {tau:g}, {entropy:g} | {' | '.join(row)} |")
    return lines
