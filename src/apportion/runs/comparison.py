"""The summary of a comparison: what each arm reached, what it cost, and how soon it got to where the others ended."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apportion.runs.atomic import atomic_write_text
from apportion.runs.curves import Curve, best, curve, share_to_best, statistics
from apportion.runs.equality import differences
from apportion.runs.pareto import front
from apportion.runs.record import RunRecord, read_comparison
from apportion.runs.schema import SCHEMA, dump_file

METRICS = ("macro", "worst", "objective")
OF_TARGETS = ("target", "others")


def summarise(root: str | Path) -> dict[str, Any]:
    """Read the comparison in ``root``, write ``<root>/summary.json`` and return it; see `comparison_summary`.

    Raises:
        ApportionError: There is no comparison in ``root``, or a run in it cannot be read.
    """
    root = Path(root)
    summary = comparison_summary(read_comparison(root), root)
    atomic_write_text(root / "summary.json", dump_file(summary))
    return summary


def comparison_summary(arms: Mapping[str, Sequence[RunRecord]], root: Path) -> dict[str, Any]:
    """Return the summary of several arms; every number is taken over the finished runs of an arm.

    Each number over seeds is ``{"mean", "min", "max"}``, or None if no run has it. An arm has: ``runs`` and
    ``unfinished`` (paths relative to ``root``), ``baseline`` (nothing is learnt or scored in it), ``final`` and
    ``best`` by metric, ``se`` (the standard error of ``final`` by metric, from its examples) and ``examples`` (their
    number), ``n_eff``, ``seconds``, ``total_flops`` (of all accounts), ``supervised_tokens``, and

    - ``on_front``: whether no other arm costs at most as many FLOPs of all accounts and ends at most as high, in means over
      seeds, with less of one of them; see `front`;
    - ``tokens_to_best_of``: by other arm and metric, the supervised tokens this arm spent to come down to the other's
      lowest validation loss, as a share of the tokens the other spent to get there; runs are paired by seed. None if no
      pair gets there; else the statistics are over the pairs that do, ``reached`` says how many those are, ``of`` how many
      there are in all;
    - ``flops_to_best_of``: the same over the FLOPs of all accounts.

    Where all runs have the same targets, ``final``, ``best`` and ``se`` have the metrics ``target`` and ``others`` too, the
    shares of tokens and FLOPs ``target``, and an arm ``target_examples``, as many as its targets are measured on.

    ``best_baseline`` is the baseline arm with the lowest mean of its best losses, None without one: of the target losses
    where all runs have the same targets, else of the macro losses. ``judged_by`` names that metric, ``target`` or
    ``macro``; the front goes by its final loss. Where the runs are not ``equal`` (``differs`` says in what, see
    `differences`), ``best_baseline``, ``on_front`` and all shares of tokens and FLOPs are None.
    """
    finished = {name: [run for run in runs if run.finished] for name, runs in arms.items()}
    differs = differences(arms)
    aimed = bool(common_targets(arms))
    metric = "target" if aimed else "macro"
    summary: dict[str, Any] = {"schema": SCHEMA, "equal": not differs, "differs": differs, "judged_by": metric}
    summary |= {"best_baseline": None, "arms": {}}
    curves = {
        key: {name: _curves(runs, total_flops, aimed) for name, runs in finished.items()}
        for key, total_flops in (("tokens_to_best_of", False), ("flops_to_best_of", True))
    }
    for name, runs in arms.items():
        others = [other for other in arms if other != name]
        summary["arms"][name] = {
            "runs": [os.path.relpath(run.path, root) for run in runs],
            "unfinished": [os.path.relpath(run.path, root) for run in runs if not run.finished],
            "baseline": all(run.is_baseline for run in finished[name] or runs),
            **_numbers(finished[name], aimed),
            **{
                key: {o: _to_best(curves[key][name], {} if differs else curves[key][o]) for o in others}
                for key in curves
            },
        }
    summary["best_baseline"] = None if differs else _best_baseline(summary["arms"], metric)
    reached = front(_costs(summary["arms"], metric))
    for name, arm in summary["arms"].items():
        arm["on_front"] = None if differs else name in reached
    return summary


def common_targets(arms: Mapping[str, Sequence[RunRecord]]) -> dict[str, float]:
    """Return the importance of each target by name, where all runs that were validated have the same; else nothing."""
    found = [run.targets for runs in arms.values() for run in runs if run.final]
    return found[0] if found and all(targets == found[0] for targets in found) else {}


def _numbers(runs: Sequence[RunRecord], aimed: bool) -> dict[str, Any]:
    metrics = (*METRICS, *(OF_TARGETS if aimed else ()))
    bests = {metric: [best(curve(run.history, metric)) for run in runs] for metric in metrics}
    return {
        "final": {metric: statistics(run.final.get(metric) for run in runs) for metric in metrics},
        "best": {metric: statistics(b[1] if b else None for b in bests[metric]) for metric in metrics},
        "se": {metric: _error([run.errors.get(metric) for run in runs]) for metric in metrics},
        "examples": max((run.examples for run in runs), default=0) or None,
        **({"target_examples": max((run.target_examples for run in runs), default=0) or None} if aimed else {}),
        "n_eff": statistics(run.summary.get("n_eff") for run in runs if run.summary is not None),
        "seconds": statistics(run.seconds for run in runs),
        "total_flops": statistics(run.total_flops for run in runs),
        "supervised_tokens": statistics(run.supervised_tokens for run in runs),
    }


def _error(errors: Sequence[float | None]) -> float | None:
    """Return the mean of the runs' standard errors: all seeds see the same examples, so that more seeds do not lower it."""
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known and len(known) == len(errors) else None


Curves = Mapping[str, Mapping[int, Curve]]


def _curves(runs: Sequence[RunRecord], total_flops: bool, aimed: bool) -> Curves:
    """Return the curves of an arm's runs, by metric and seed."""
    metrics = ("macro", "objective", *(("target",) if aimed else ()))
    return {metric: {run.seed: curve(run.history, metric, total_flops) for run in runs} for metric in metrics}


def _to_best(mine: Curves, other: Curves) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for metric, by_seed in mine.items():
        theirs = other.get(metric, {})
        shares = [share_to_best(points, theirs[seed]) for seed, points in by_seed.items() if seed in theirs]
        numbers = statistics(shares)
        reached = sum(share is not None for share in shares)
        result[metric] = None if numbers is None else {**numbers, "reached": reached, "of": len(shares)}
    return result


def _best_baseline(arms: Mapping[str, Any], metric: str) -> str | None:
    known = {name: arm["best"][metric]["mean"] for name, arm in arms.items() if arm["baseline"] and arm["best"][metric]}
    return min(known, key=lambda name: known[name]) if known else None


def _costs(arms: Mapping[str, Any], metric: str) -> dict[str, tuple[float, float]]:
    """Return the mean FLOPs and the mean final loss of each arm that has one."""
    ended = {name: arm["final"][metric] for name, arm in arms.items() if arm["final"][metric]}
    return {name: (arms[name]["total_flops"]["mean"], final["mean"]) for name, final in ended.items()}
