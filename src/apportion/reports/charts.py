"""Line, area and scatter charts as inline SVG: coloured by CSS classes, readable without scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from apportion.reports.svg import Point, area_path, decade_ticks, line_path, mark, nice_ticks, tag
from apportion.reports.words import tick

HEIGHT = 300.0
WIDE, NARROW = 480.0, 380.0  # widths of charts that stand in rows of two and of three
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 14.0, 28.0, 46.0


@dataclass(frozen=True)
class Series:
    """One arm's line: the mean over seeds and, where there are several, the band from the lowest to the highest.

    ``said``: of each point, where every one is a measurement of its own: it gets a mark, and what it says stands under the
    pointer.
    """

    name: str
    colour: str
    mark: str
    mean: list[Point]
    low: list[Point] = field(default_factory=list)
    high: list[Point] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Goal:
    """A level worth reaching, and where an arm reached it against where it was set."""

    level: float
    label: str
    reached: float | None = None
    held: float | None = None
    saving: str = ""
    colour: str = ""
    above: bool = False


@dataclass(frozen=True)
class Frame:
    """The drawing's size and its two axes: (low, high) in data units, and which of them are logarithmic."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = WIDE
    height: float = HEIGHT
    log_x: bool = False
    log_y: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what the axes enclose, in the drawing."""
        return _LEFT, _TOP, self.width - _RIGHT, self.height - _BOTTOM

    def px(self, x: float) -> float:
        """Data x to drawing x."""
        return _LEFT + (self.width - _LEFT - _RIGHT) * _part(x, self.x, self.log_x)

    def py(self, y: float) -> float:
        """Data y to drawing y, growing upwards."""
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * _part(y, self.y, self.log_y)

    def points(self, points: Sequence[Point]) -> list[Point]:
        """Data points to drawing points."""
        return [(self.px(x), self.py(y)) for x, y in points]


def _part(value: float, ends: tuple[float, float], log: bool) -> float:
    low, high = ends
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low) if high > low else 0.5


def axes(
    frame: Frame, x_label: str, y_label: str, say_x: Callable[[float], str], say_y: Callable[[float], str]
) -> Markup:
    """Return the grid, the tick labels and the names of both axes."""
    _, _, right, bottom = frame.box
    parts = []
    for value in decade_ticks(*frame.y) if frame.log_y else nice_ticks(*frame.y):
        y = frame.py(value)
        parts.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, cls="grid"))
        parts.append(tag("text", say_y(value), x=_LEFT - 7, y=y, dy=".34em", text_anchor="end"))
    for value in decade_ticks(*frame.x) if frame.log_x else nice_ticks(*frame.x, wanted=4):
        x = frame.px(value)
        parts.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, cls="tick"))
        anchor = "end" if x > right - 12 else "middle"
        parts.append(tag("text", say_x(value).replace(".0×", "×"), x=x, y=bottom + 8, dy=".8em", text_anchor=anchor))
    parts.append(tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, cls="axis"))
    parts.append(tag("text", x_label, x=right, y=frame.height - 5, text_anchor="end", cls="label"))
    parts.append(tag("text", y_label, x=4, y=13, cls="label"))
    return Markup("").join(parts)


def picture_of(frame: Frame, title: str, *parts: str, hover: object = None) -> Markup:
    """Wrap a chart's parts into an SVG that scales with the page and has its title read out."""
    data = None if hover is None else json.dumps(hover, separators=(",", ":"))
    return tag(
        "svg",
        tag("title", title),
        *parts,
        viewBox=f"0 0 {frame.width:.0f} {frame.height:.0f}",
        role="img",
        aria_label=title,
        cls="chart",
        data_hover=data,
    )


def line_chart(
    frame: Frame,
    series: Sequence[Series],
    names: tuple[str, str, str],
    say: Sequence[Callable[[float], str]],
    goal: Goal | None = None,
) -> Markup:
    """Draw lines with bands; ``names`` are the title and the names of the axes, ``say`` writes x and y values.

    What lies outside the frame's y range is cut off at its edge.
    """
    title, x_label, y_label = names
    say_x, say_y = say
    left, top, right, bottom = frame.box
    room = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    # A drawing in the drawing cuts off what lies outside, without an id that would have to be its own on the page.
    inside = f"{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"
    bands = [
        tag("path", d=area_path(frame.points(s.high), frame.points(s.low)), cls=f"band {s.colour}")
        for s in series
        if len(s.low) > 1
    ]
    lines = [tag("path", d=line_path(frame.points(s.mean)), cls=f"line {s.colour}") for s in series if len(s.mean) > 1]
    marks = [shape for s in series for shape in _marks(frame, s)]
    return picture_of(
        frame,
        title,
        axes(frame, x_label, y_label, say_x, tick),
        tag("svg", *bands, *lines, viewBox=inside, **room),
        _goal(frame, goal) if goal else "",
        *marks,
        hover=_hover(frame, series, x_label, (say_x, say_y)),
    )


def _marks(frame: Frame, series: Series) -> list[Markup]:
    if not series.said:
        ends = frame.points(series.mean[-1:])
        return [mark(series.mark, *end, 4.2, cls=f"mark {series.colour}") for end in ends]
    return [
        tag("g", tag("title", f"{series.name}: {said}"), mark(series.mark, *point, 4.2, cls=f"mark {series.colour}"))
        for point, said in zip(frame.points(series.mean), series.said, strict=True)
    ]


def _goal(frame: Frame, goal: Goal) -> Markup:
    y = frame.py(goal.level)
    right = frame.width - _RIGHT
    parts = [tag("line", x1=_LEFT, x2=right, y1=y, y2=y, cls="goal")]
    label_y = y - 7 if goal.above else y + 17
    parts.append(tag("text", goal.label, x=_LEFT + 6, y=label_y, cls="note"))
    if goal.reached is not None and goal.held is not None:
        start, end = frame.px(goal.reached), frame.px(goal.held)
        bottom = frame.height - _BOTTOM
        parts.append(tag("line", x1=start, x2=start, y1=y, y2=bottom, cls=f"drop {goal.colour}"))
        parts.append(tag("circle", cx=start, cy=y, r=4.0, cls=f"ring {goal.colour}"))
        if abs(end - start) > 12:
            parts.append(tag("line", x1=end, x2=start, y1=y, y2=y, cls=f"saving {goal.colour}"))
        anchor, x = ("end", start - 6) if start > 0.66 * frame.width else ("start", start + 6)
        parts.append(tag("text", goal.saving, x=x, y=bottom - 7, text_anchor=anchor, cls=f"gain {goal.colour}"))
    return Markup("").join(parts)


def _hover(frame: Frame, series: Sequence[Series], x_label: str, say: Sequence[Callable[[float], str]]) -> object:
    """Return what the page's script needs to show values under the pointer."""

    def points(s: Series) -> list[list[object]]:
        said = s.said or [say[1](y) for _, y in s.mean]
        return [
            [round(frame.px(x), 1), round(frame.py(y), 1), say[0](x), text]
            for (x, y), text in zip(s.mean, said, strict=True)
        ]

    return {
        "box": list(frame.box),
        "label": x_label,
        "series": [{"name": s.name, "colour": s.colour, "points": points(s)} for s in series if s.mean],
    }


def stacked_chart(
    frame: Frame,
    bands: Sequence[tuple[str, str, list[float]]],
    xs: Sequence[float],
    names: tuple[str, str, str],
    say_x: Callable[[float], str],
) -> Markup:
    """Draw shares that add up to one over ``xs``; ``bands`` are (name, colour, shares) from the bottom up."""
    title, x_label, y_label = names
    lower = [0.0] * len(xs)
    parts: list[str] = []
    labels: list[str] = []
    for name, colour, shares in bands:
        upper = [low + share for low, share in zip(lower, shares, strict=True)]
        path = area_path(
            frame.points(list(zip(xs, upper, strict=True))), frame.points(list(zip(xs, lower, strict=True)))
        )
        parts.append(
            tag(
                "path",
                tag("title", f"{name}: {100 * shares[-1]:.1f} % at the end"),
                d=path,
                fill=colour,
                cls="stack" if len(bands) <= 30 else "stack fine",
            )
        )
        if shares[-1] >= 0.065 and min(shares[-len(shares) // 4 :]) >= 0.05:
            y = frame.py((upper[-1] + lower[-1]) / 2)
            x = frame.width - _RIGHT - 6
            labels.append(tag("text", shorten(name), x=x, y=y, dy=".34em", text_anchor="end", cls=f"on-{ink(colour)}"))
        lower = upper
    return picture_of(frame, title, axes(frame, x_label, y_label, say_x, lambda v: f"{100 * v:.0f} %"), *parts, *labels)


def scatter_chart(
    frame: Frame,
    arms: Sequence[tuple[str, str, str, list[tuple[str, float, float]]]],
    names: tuple[str, str, str],
    guides: Sequence[float],
    say: Callable[[float], str],
) -> Markup:
    """Draw points on two logarithmic axes; ``arms`` are (name, colour, mark, points of (task, x, y)).

    ``guides`` are drawn as the lines y = guide * x, each a number of epochs.
    """
    title, x_label, y_label = names
    parts: list[str] = []
    for guide in guides:
        low = max(frame.x[0], frame.y[0] / guide)
        high = min(frame.x[1], frame.y[1] / guide)
        if low < high:
            x, y = frame.px(low), frame.py(low * guide)
            parts.append(tag("line", x1=x, y1=y, x2=frame.px(high), y2=frame.py(high * guide), cls="goal"))
            label = "1 epoch" if guide == 1 else f"{guide:g} epochs"
            # Above the line's lower end: the upper ends of two guides meet in the corner.
            parts.append(tag("text", label, x=x + 4, y=y - 12, cls="note"))
    for name, colour, shape, points in arms:
        for task, x, y in points:
            text = f"{name}, {task}: {say(y)} of {say(x)} tokens, {y / x:.2g} epochs"
            parts.append(tag("g", tag("title", text), mark(shape, frame.px(x), frame.py(y), 4.4, cls=f"dot {colour}")))
    return picture_of(frame, title, axes(frame, x_label, y_label, say, say), *parts)


def shorten(name: str, length: int = 20) -> str:
    """Return ``name`` cut to ``length`` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"


_RAMP = [(57, 45, 122), (44, 98, 152), (39, 141, 141), (104, 184, 110), (232, 208, 98)]


def ramp(part: float) -> str:
    """Return a colour from dark (0) to light (1): its order is its lightness, so it can be told without hue."""
    place = min(max(part, 0.0), 1.0) * (len(_RAMP) - 1)
    left = min(int(place), len(_RAMP) - 2)
    mixed = [a + (b - a) * (place - left) for a, b in zip(_RAMP[left], _RAMP[left + 1], strict=True)]
    return "#" + "".join(f"{round(c):02x}" for c in mixed)


def ink(colour: str) -> str:
    """Return which ink can be read on ``colour``: ``dark`` or ``light``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "dark" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "light"
