"""The few SVG shapes the charts are made of; every attribute and text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Return an element; ``_`` in attribute names stands for ``-``, ``cls`` for ``class``, None leaves one out."""
    written = "".join(
        f' {"class" if key == "cls" else key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>" if children else f"<{name}{written}/>")


def _text(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def line_path(points: Iterable[Point]) -> str:
    """Return the path data of a line through the points."""
    return "M" + "L".join(f"{_text(float(x))} {_text(float(y))}" for x, y in points)


def area_path(upper: Sequence[Point], lower: Sequence[Point]) -> str:
    """Return the path data of the area between two lines."""
    return line_path([*upper, *reversed(lower)]) + "Z"


def mark(shape: str, x: float, y: float, size: float, **attributes: object) -> Markup:
    """Return a data mark centred on (x, y), of about the same area in every shape."""
    s = size
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=s, **attributes)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "up": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "down": [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
        "cross": [
            *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
            *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
        ],
    }[shape]
    return tag("path", d=line_path((x + s * dx, y + s * dy) for dx, dy in corners) + "Z", **attributes)


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers within [low, high], about ``wanted`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decade_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten within [low, high], at most six; with 2s and 5s between where there are fewer than three.

    Within less than that the ticks are evenly apart.
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / 6))
    ticks = [10.0**power for power in range(first, last + 1, stride)]
    if len(ticks) < 3:
        ticks = [m * 10.0**power for power in range(first - 1, last + 1) for m in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else nice_ticks(low, high, 4)
