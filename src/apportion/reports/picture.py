"""One small picture of a comparison, for a README: the curves, and the mixture that was learnt."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from markupsafe import Markup

from apportion._errors import ApportionError
from apportion.reports.charts import HEIGHT, WIDE
from apportion.reports.figures import loss_chart, mixture_chart
from apportion.reports.svg import mark, tag
from apportion.reports.verdict import verdict
from apportion.reports.view import View, load
from apportion.runs import atomic_write_text

_MORE = """
text.head { font-size: 17px; font-weight: 700; fill: var(--ink) }
.paper { fill: var(--card); stroke: var(--rule) }
"""
_WIDTH, _TITLE, _LEGEND = 2 * WIDE + 60, 50.0, 34.0


def picture(root: str | Path, out: str | Path) -> Path:
    """Draw the loss that arms are judged by beside the learned mixture, as an SVG that follows dark mode.

    It is macro loss, or target loss where there are targets, against supervised tokens.

    Args:
        root: A comparison folder or a run folder.
        out: The file, ending in ``.svg``.

    Raises:
        ApportionError: ``out`` is no SVG file, or ``root`` holds no validated run or no mixture to draw.
    """
    out = Path(out)
    if out.suffix != ".svg":
        raise ApportionError(f"'{out}' does not end in .svg: the picture is an SVG file.")
    view = load([Path(root)])
    left = loss_chart(view, view.metric, total_flops=False)
    right = mixture_chart(view, view.candidate or view.arms[-1], WIDE)
    if left is None or right is None:
        raise ApportionError(f"There is nothing to draw in '{root}': no run has validation losses and a mixture.")
    atomic_write_text(out, _draw(view, left, right))
    return out


def _draw(view: View, left: Markup, right: Markup) -> str:
    height = HEIGHT + _TITLE + _LEGEND + 12
    style = resources.files("apportion.reports").joinpath("palette.css").read_text("utf-8")
    headline = verdict(view).headline
    return str(
        tag(
            "svg",
            tag("title", headline),
            Markup(f"<style><![CDATA[{style}{_MORE}]]></style>"),
            tag("rect", x=0.5, y=0.5, width=_WIDTH - 1, height=height - 1, rx=12, cls="paper"),
            tag("text", headline, x=24, y=34, cls="head", style=f"font-size: {min(17.0, 1700 / len(headline)):.1f}px"),
            _legend(view),
            _place(left, 20.0),
            _place(right, 40.0 + WIDE),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {_WIDTH:.0f} {height:.0f}",
            width=int(_WIDTH),
            height=int(height),
            role="img",
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
