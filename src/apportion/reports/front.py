"""The chart of what each arm reached for what it cost: final loss against all FLOPs, with the front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import Frame, axes, picture_of, shorten
from apportion.reports.figures import METRICS
from apportion.reports.labels import Box, Name, written
from apportion.reports.svg import Point, area_path, line_path, mark, tag
from apportion.reports.view import Arm, View

_FAR = 4.0  # costs further apart than this are told apart on a logarithmic axis only
_NEAR = 0.1  # costs nearer to each other than this share of the largest are not drawn as if they were far apart


def drawn(view: View) -> list[Arm]:
    """Return the arms that have a final loss, and with it a place in the chart."""
    return [arm for arm in view.arms if arm.numbers["final"][view.metric]]


def front_chart(view: View) -> Markup | None:
    """Draw the arms' means, their ranges over seeds and the front's steps; None with fewer than two arms to draw."""
    arms = drawn(view)
    if len(arms) < 2:
        return None
    frame = _frame(arms, view)
    label, say = _x_axis(frame)
    line = _steps(frame, [_mean(arm, view) for arm in arms if arm.numbers["on_front"]])
    _, top, right, _ = frame.box
    title = f"{METRICS[view.metric]} at the end against the FLOPs of all accounts"
    return picture_of(
        frame,
        title,
        tag("path", d=area_path(line, [(right, top)]), cls="dominated") if line else "",
        axes(frame, label, METRICS[view.metric], say, words.tick),
        tag("path", d=line_path(line), cls="front") if line else "",
        *[_arm(arm, frame, view) for arm in arms],
        *_names(arms, frame, line, view),
    )


def _mean(arm: Arm, view: View) -> Point:
    return arm.numbers["total_flops"]["mean"], arm.numbers["final"][view.metric]["mean"]


def _frame(arms: Sequence[Arm], view: View) -> Frame:
    costs = [arm.numbers["total_flops"] for arm in arms]
    losses = [arm.numbers["final"][view.metric] for arm in arms]
    cheap, dear = min(cost["min"] for cost in costs), max(cost["max"] for cost in costs)
    low, high = min(loss["min"] for loss in losses), max(loss["max"] for loss in losses)
    margin = 0.12 * (high - low) or 0.05
    if cheap > 0 and dear / cheap > _FAR:
        aside = (dear / cheap) ** 0.1
        x = (cheap / aside, dear * aside)
    else:
        aside = 0.1 * (dear - cheap) + 0.5 * max(0.0, _NEAR * dear - (dear - cheap)) or 0.5
        x = (cheap - aside, dear + aside)
    return Frame(x, (low - margin, high + margin), width=560, height=420, log_x=cheap > 0 and dear / cheap > _FAR)


def _x_axis(frame: Frame) -> tuple[str, Callable[[float], str]]:
    """Return the name of the x axis and what writes its numbers: without their power of ten where all share one."""
    if frame.log_x or frame.x[1] < 1e3:
        return "FLOPs, all accounts", words.flops
    exponent = math.floor(math.log10(frame.x[1]))
    return f"FLOPs, all accounts, {words.power(exponent)}", lambda flops: words.tick(flops / 10**exponent)


def _steps(frame: Frame, front: Sequence[Point]) -> list[Point]:
    """Return the front in the drawing: at every cost the lowest loss that any arm reached for no more."""
    corners = frame.points(sorted(front))
    if not corners:
        return []
    _, top, right, _ = frame.box
    line = [(corners[0][0], top), corners[0]]
    for (_, before), (x, y) in pairwise(corners):
        line += [(x, before), (x, y)]
    return [*line, (right, corners[-1][1])]


def _whiskers(arm: Arm, frame: Frame, view: View) -> list[tuple[Point, Point]]:
    """Return the ranges over seeds as lines in the drawing, one of cost and one of loss, where there is a range."""
    cost, loss = arm.numbers["total_flops"], arm.numbers["final"][view.metric]
    across = ((frame.px(cost["min"]), frame.py(loss["mean"])), (frame.px(cost["max"]), frame.py(loss["mean"])))
    down = ((frame.px(cost["mean"]), frame.py(loss["max"])), (frame.px(cost["mean"]), frame.py(loss["min"])))
    return [(start, end) for start, end in (across, down) if start != end]


def _arm(arm: Arm, frame: Frame, view: View) -> Markup:
    cost, loss = arm.numbers["total_flops"], arm.numbers["final"][view.metric]
    said = f"{arm.name}: {words.mean(cost, words.flops)} FLOPs, {view.loss_name} {words.mean(loss, words.loss)}"
    (x, y), *_ = frame.points([_mean(arm, view)])
    return tag(
        "g",
        tag("title", said),
        *[tag("path", d=line_path(ends), cls=f"whisker {arm.colour}") for ends in _whiskers(arm, frame, view)],
        mark(arm.mark, x, y, 5.0, cls=f"mark {arm.colour}"),
    )


def _names(arms: Sequence[Arm], frame: Frame, line: Sequence[Point], view: View) -> list[Markup]:
    points = frame.points([_mean(arm, view) for arm in arms])
    names = [
        Name(shorten(arm.name, 18), point, arm.colour, on=bool(arm.numbers["on_front"]))
        for arm, point in zip(arms, points, strict=True)
    ]
    pieces = [ends for arm in arms for ends in _whiskers(arm, frame, view)]
    pieces += pairwise(line)
    thin = [Box(min(a[0], b[0]), min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1])) for a, b in pieces]
    return written(names, Box(*frame.box), thin)
