"""The figures of a report, each worked out from the view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import (
    HEIGHT,
    NARROW,
    WIDE,
    Frame,
    Goal,
    Series,
    line_chart,
    ramp,
    scatter_chart,
    stacked_chart,
)
from apportion.reports.svg import Point
from apportion.reports.verdict import verdict
from apportion.reports.view import Arm, View
from apportion.runs import RunRecord
from apportion.runs.curves import at, best, curve, first_reach, tokens_spent

T = TypeVar("T")

METRICS = {
    "target": "Target loss",
    "others": "Other tasks",
    "macro": "Macro loss",
    "objective": "Objective J",
    "worst": "Worst task",
}
OF_TARGETS = ("target", "others")
_HIDDEN = 0.12  # the first part of the budget may leave the frame: the steep start would flatten everything else
_SAMPLES = 60
_SETS = 6
_BANDS = 72  # more tasks than this are drawn together with their neighbours in size


def series_over_seeds(arm: Arm, read: Callable[[RunRecord], list[Point]]) -> Series:
    """Return the mean over the arm's finished runs, and their range, at every x that all of them cover."""
    curves = [points for points in map(read, arm.finished or arm.runs) if points]
    if not curves:
        return Series(arm.name, arm.colour, arm.mark, [])
    if len(curves) == 1:
        return Series(arm.name, arm.colour, arm.mark, list(thin(curves[0], 4 * _SAMPLES)))
    start, end = max(points[0][0] for points in curves), min(points[-1][0] for points in curves)
    xs = thin(sorted({x for points in curves for x, _ in points if start <= x <= end}), 4 * _SAMPLES)
    rows = [(x, [y for y in (at(points, x) for points in curves) if y is not None]) for x in xs]
    mean = [(x, sum(ys) / len(ys)) for x, ys in rows]
    return Series(
        arm.name, arm.colour, arm.mark, mean, [(x, min(ys)) for x, ys in rows], [(x, max(ys)) for x, ys in rows]
    )


def thin(items: Sequence[T], limit: int) -> Sequence[T]:
    """Return at most ``limit`` of the items, evenly, with both ends."""
    if len(items) <= limit:
        return items
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def loss_chart(view: View, metric: str, total_flops: bool) -> Markup | None:
    """Draw one metric's validation curves against supervised tokens, or against the FLOPs of all accounts."""
    series = [series_over_seeds(arm, lambda run: curve(run.history, metric, total_flops)) for arm in view.arms]
    shown = [s for s in series if s.mean]
    if not shown:
        return None
    end = max(s.mean[-1][0] for s in shown)
    inside = [y for s in shown for part in (s.mean, s.low, s.high) for x, y in part if x >= _HIDDEN * end]
    inside = inside or [y for s in shown for _, y in s.mean]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low) or 0.05
    frame = Frame((0.0, end or 1.0), (low - 3 * margin, high + margin))
    x_name = "FLOPs, all accounts" if total_flops else "supervised tokens trained on"
    names = (f"{METRICS[metric]} against {x_name}", x_name, METRICS[metric])
    return line_chart(
        frame,
        shown,
        names,
        (words.flops if total_flops else words.count, words.loss),
        _goal(view, shown, metric, total_flops),
    )


def _goal(view: View, shown: Sequence[Series], metric: str, total_flops: bool) -> Goal | None:
    base, candidate = view.baseline, view.candidate
    theirs = next((s for s in shown if base and s.name == base.name), None)
    ours = next((s for s in shown if candidate and s.name == candidate.name), None)
    lowest = best(theirs.mean) if theirs else None
    if lowest is None or base is None:
        return None
    label = f"{base.name}’s best"
    if ours is None or candidate is None:
        return Goal(lowest[1], label)
    account = "flops_to_best_of" if total_flops else "tokens_to_best_of"
    share = candidate.numbers[account][base.name].get(metric)
    saving = (
        f"{words.percent(share['mean'])} of the {'FLOPs' if total_flops else 'tokens'}"
        if share and share["reached"] == share["of"] and verdict(view).kind == "gain"
        else ""
    )
    reached = first_reach(ours.mean, lowest[1]) if saving else None
    return Goal(lowest[1], label, reached, lowest[0], saving, candidate.colour)


def mixture_charts(view: View) -> list[Markup]:
    """Draw the mixture of every arm and, last, their effective numbers of tasks: wide if they fill rows of two."""
    count = len(view.arms) + 1
    width = NARROW if count % 3 == 0 or count > 4 else WIDE
    charts = [*(mixture_chart(view, arm, width) for arm in view.arms), n_eff_chart(view, width)]
    return [chart for chart in charts if chart]


def mixture_chart(view: View, arm: Arm, width: float) -> Markup | None:
    """Draw the mixture of the arm's shown run over its supervised tokens, the largest task at the bottom."""
    tasks = list(view.sizes)
    samples = _SAMPLES if len(tasks) <= 30 else _SAMPLES // 2
    records = thin([record for record in arm.shown.history if record.get("mixture")], samples)
    if len(records) < 2:
        return None
    xs = [tokens_spent(record) for record in records]
    together = -(-len(tasks) // _BANDS)
    bands = []
    for start in range(0, len(tasks), together):
        group = tasks[start : start + together]
        shares = [sum(record["mixture"].get(task, 0.0) for task in group) for record in records]
        name = group[0] if len(group) == 1 else f"{len(group)} tasks from {group[0]} to {group[-1]}"
        bands.append((name, ramp(start / max(1, len(tasks) - 1)), shares))
    frame = Frame((xs[0], xs[-1] or 1.0), (0.0, 1.0), width=width, height=HEIGHT if width == WIDE else 270.0)
    names = (
        f"Mixture of {arm.name} over training, seed {arm.shown.seed}",
        "supervised tokens",
        f"{arm.name}: share of draws",
    )
    return stacked_chart(frame, bands, xs, names, words.count)


def n_eff_chart(view: View, width: float) -> Markup | None:
    """Draw the effective number of tasks, exp of the mixture's entropy, over training."""

    def read(run: RunRecord) -> list[Point]:
        known = [(tokens_spent(record), record.get("n_eff")) for record in run.history]
        return list(thin([(x, y) for x, y in known if y is not None], _SAMPLES))

    shown = [s for s in (series_over_seeds(arm, read) for arm in view.arms) if len(s.mean) > 1]
    if not shown:
        return None
    tasks = len(view.sizes)
    frame = Frame(
        (0.0, max(s.mean[-1][0] for s in shown) or 1.0),
        (0.0, 1.14 * tasks),
        width=width,
        height=HEIGHT if width == WIDE else 270.0,
    )
    names = (
        "Effective number of tasks over training",
        "supervised tokens",
        f"n_eff (of {words.several(tasks, 'task')})",
    )
    return line_chart(
        frame, shown, names, (words.count, lambda n: f"{n:.3g}"), Goal(float(tasks), "every task alike", above=True)
    )


def weight_charts(view: View) -> list[Markup]:
    """Draw the mean of the examples' weights and their effective sample size over training, for arms that weigh."""
    arms = [arm for arm in view.arms if any(record.get("weights") for record in arm.shown.history)]
    if not arms:
        return []

    def drawn(key: str) -> list[Series]:
        def read(run: RunRecord) -> list[Point]:
            known = [(tokens_spent(record), (record.get("weights") or {}).get(key)) for record in run.history]
            return list(thin([(x, y) for x, y in known if y is not None], _SAMPLES))

        return [s for s in (series_over_seeds(arm, read) for arm in arms) if len(s.mean) > 1]

    return [
        *_weight_chart(drawn("mean"), "Mean weight", "mean weight of an example", None),
        *_weight_chart(
            drawn("ess"), "Effective sample size", "share of the examples", Goal(1.0, "all alike", above=True)
        ),
    ]


def evaluation_charts(view: View) -> list[Markup]:
    """Draw the scores of downstream sets that were measured while training went on, six sets at most."""

    def read(run: RunRecord, name: str) -> list[Point]:
        known = [(tokens_spent(record), _scores(record).get(name)) for record in run.history]
        return [(x, y) for x, y in known if y is not None]

    names = list(dict.fromkeys(name for run in view.runs for record in run.history for name in _scores(record)))
    charts = []
    for name in names[:_SETS]:
        shown = [s for s in (series_over_seeds(arm, partial(read, name=name)) for arm in view.arms) if len(s.mean) > 1]
        charts += _weight_chart(shown, f"Score of {name}", f"score of {name}", None)
    return charts


def _scores(record: Mapping[str, Any]) -> Mapping[str, float | None]:
    return record.get("evaluation") or {}


def _weight_chart(shown: Sequence[Series], title: str, label: str, goal: Goal | None) -> list[Markup]:
    if not shown:
        return []
    ys = [y for s in shown for part in (s.mean, s.low, s.high) for _, y in part] + ([goal.level] if goal else [])
    margin = 0.14 * (max(ys) - min(ys)) or 0.05
    frame = Frame((0.0, max(s.mean[-1][0] for s in shown) or 1.0), (min(ys) - margin, max(ys) + margin))
    names = (f"{title} over training", "supervised tokens", label)
    return [line_chart(frame, shown, names, (words.count, lambda w: f"{w:.4g}"), goal)]


def size_chart(view: View) -> Markup | None:
    """Draw the supervised tokens drawn from each task against those it has, one point a task and arm."""
    arms = []
    for arm in view.arms:
        tasks = arm.shown.mixture["tasks"] if arm.shown.mixture else {}
        points = [
            (t, float(d["size"]), float(d["supervised"]))
            for t, d in tasks.items()
            if d["size"] > 0 and d["supervised"] > 0
        ]
        if points:
            arms.append((arm.name, arm.colour, arm.mark, points))
    if not arms:
        return None
    xs, ys = [x for *_, points in arms for _, x, _ in points], [y for *_, points in arms for _, _, y in points]
    x, y = (min(xs) / 1.6, max(xs) * 1.6), (min(ys) / 1.6, max(ys) * 1.6)
    frame = Frame(x, y, width=560, height=420, log_x=True, log_y=True)
    names = (
        "Supervised tokens drawn from each task against its size",
        "tokens in the task’s train split",
        "tokens drawn",
    )
    return scatter_chart(frame, arms, names, (1.0, 4.0), words.count)
