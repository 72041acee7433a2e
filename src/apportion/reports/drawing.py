"""A small drawing of runs that stands alone: headline, legend, curves and mixture in one SVG with colours of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from apportion._errors import ApportionError
from apportion.reports.charts import HEIGHT, WIDE
from apportion.reports.figures import loss_chart, mixture_chart
from apportion.reports.svg import mark, tag
from apportion.reports.verdict import verdict
from apportion.reports.view import View

_MORE = """
text.head { font-size: 17px; font-weight: 700; fill: var(--ink) }
.paper { fill: var(--card); stroke: var(--rule) }
"""
_TITLE, _LEGEND = 50.0, 34.0


def svg_file(out: str | Path) -> Path:
    """Return the path of an SVG file.

    Raises:
        ApportionError: It does not end in ``.svg``.
    """
    if Path(out).suffix != ".svg":
        raise ApportionError(f"'{out}' does not end in .svg: the picture is an SVG file.")
    return Path(out)


def drawings(view: View) -> list[Markup]:
    """Return the curves of the loss that arms are judged by and the mixture that was learnt, as far as there are any."""
    left = loss_chart(view, view.metric, total_flops=False)
    right = mixture_chart(view, view.candidate or view.arms[-1], WIDE)
    return [chart for chart in (left, right) if chart is not None]


def scoped(css: str, within: str) -> str:
    """Return the rules of a style sheet for what stands within a selector only, which takes the place of ``:root``."""

    def narrowed(rule: re.Match[str]) -> str:
        parts = (part.strip() for part in rule[1].split(","))
        names = (within if part == ":root" else f"{within} {part}" for part in parts)
        return f"{', '.join(names)} {{{rule[2]}}}\n"

    return re.sub(r"([^{}]+)\{([^{}]*)\}", narrowed, re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))


def style(within: str) -> str:
    """Return the colours and texts of charts for what stands within a selector, so that no page around them changes."""
    palette = resources.files("apportion.reports").joinpath("palette.css").read_text("utf-8")
    return scoped(palette + _MORE, within)


def drawn(view: View, charts: Sequence[Markup]) -> str:
    """Return one SVG of a headline, a legend and one or two charts side by side."""
    width, height = len(charts) * (WIDE + 20) + 20, HEIGHT + _TITLE + _LEGEND + 12
    headline = verdict(view).headline
    size = min(17.0, 1.67 * width / len(headline))
    return str(
        tag(
            "svg",
            tag("title", headline),
            Markup(f"<style><![CDATA[{style('.apportion')}]]></style>"),
            tag("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=12, cls="paper"),
            tag("text", headline, x=24, y=34, cls="head", style=f"font-size: {size:.1f}px"),
            _legend(view),
            *(_place(chart, 20.0 + place * (WIDE + 20)) for place, chart in enumerate(charts)),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width:.0f} {height:.0f}",
            width=int(width),
            height=int(height),
            role="img",
            cls="apportion",
        )
    )


def _place(chart: Markup, x: float) -> Markup:
    where = Markup('<svg x="{}" y="{}" width="{}" height="{}"').format(x, _TITLE + _LEGEND, WIDE, HEIGHT)
    return where + chart.removeprefix(Markup("<svg"))


def _legend(view: View) -> Markup:
    parts, x = [], 28.0
    for arm in view.arms:
        y = _TITLE + 14
        parts.append(tag("line", x1=x, x2=x + 22, y1=y, y2=y, cls=f"line {arm.colour}"))
        parts.append(mark(arm.mark, x + 11, y, 4.2, cls=f"mark {arm.colour}"))
        parts.append(tag("text", arm.name, x=x + 29, y=y, dy=".34em"))
        x += 52 + 7.2 * len(arm.name)
    return Markup("").join(parts)
