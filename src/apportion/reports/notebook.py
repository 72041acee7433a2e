"""Runs and comparisons as a notebook shows them: a fragment of HTML without scripts, and pictures that can be saved."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from apportion._errors import ApportionError
from apportion.reports import tables, words
from apportion.reports.drawing import drawings, drawn, scoped, style, svg_file
from apportion.reports.svg import mark, tag
from apportion.reports.terminal import terminal_table
from apportion.reports.verdict import verdict
from apportion.reports.view import Arm, View, load
from apportion.runs import RunRecord, atomic_write_text

_HOVER = re.compile(r' data-hover="[^"]*"')
# The page around it has a theme that it does not know: on a card of its own, it can be read on any.
_LAID = """
:root { background: var(--card); color: var(--ink); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 18px;
  max-width: 1010px; font: 14px/1.45 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
p { margin: 0 0 6px; color: var(--soft) }
p.headline { font-size: 16px; font-weight: 700; color: var(--ink) }
table { border-collapse: collapse; margin: 10px 0; font-variant-numeric: tabular-nums; background: none; color: inherit }
th, td { padding: 3px 14px 3px 0; text-align: right; vertical-align: top;
  border: 0; border-bottom: 1px solid var(--rule); background: none }
th { font-weight: 600; color: var(--soft) }
th:first-child, td:first-child { text-align: left; color: var(--ink) }
td { white-space: nowrap }
small { color: var(--soft) }
.charts { display: flex; flex-wrap: wrap; gap: 12px }
.charts svg { flex: 1 1 340px; max-width: 480px; height: auto }
svg.key { width: 22px; height: 12px; margin-right: 6px; vertical-align: -1px }
"""


@dataclass(frozen=True, repr=False)
class Picture:
    """A drawing: a notebook shows it, and `save` writes it. It follows dark mode.

    Attributes:
        svg: The drawing, one self-contained SVG.
        title: What it says.
    """

    svg: str
    title: str

    def save(self, path: str | Path) -> Path:
        """Write the drawing and return the file's path.

        Raises:
            ApportionError: The path does not end in ``.svg``, or cannot be written.
        """
        file = svg_file(path)
        atomic_write_text(file, self.svg)
        return file

    def __repr__(self) -> str:
        return f"Picture({self.title!r})"

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="max-width: 100%; overflow-x: auto">{self.svg}</div>'


def plot(path: str | Path) -> Picture:
    """Return the curves of a run or comparison folder and, where one was recorded, the mixture that was learnt.

    Raises:
        ApportionError: It is no such folder, or has neither curves nor a mixture.
    """
    view = load([Path(path)])
    charts = drawings(view)
    if not charts:
        raise ApportionError(f"There is nothing to draw in '{path}': no run has validation losses or a mixture.")
    return Picture(drawn(view, charts), verdict(view).headline)


def fragment(path: str | Path) -> str:
    """Return a run or comparison folder as a piece of HTML: what it says, its numbers, its curves.

    It is complete in itself, without scripts, and changes nothing of the page around it.

    Raises:
        ApportionError: It is no such folder.
    """
    view = load([Path(path)])
    said = verdict(view)
    table = _arms(view) if len(view.arms) > 1 or len(view.runs) > 1 else _accounts(view.runs[0])
    charts = [Markup(_HOVER.sub("", chart)) for chart in drawings(view)]
    whole = tag(
        "div",
        Markup("<style>{}</style>").format(Markup(style(".apportion") + scoped(_LAID, "div.apportion"))),
        tag("p", said.headline, cls="headline"),
        *(tag("p", line) for line in said.details),
        table,
        tag("div", *charts, cls="charts"),
        tag("p", tag("small", str(path))),
        cls="apportion",
    )
    return str(whole)


def in_a_table(summary: Mapping[str, Any]) -> str:
    """Return the table of a comparison's summary as plain text of 80 columns."""
    from rich.console import Console

    console = Console(width=80, color_system=None, highlight=False)
    with console.capture() as said:
        console.print(terminal_table(summary))
    return said.get().rstrip()


def _arms(view: View) -> Markup:
    rows = [
        tag("tr", tag("td", _key(arm), arm.name), *(_number(cell) for cell in cells))
        for arm, cells in tables.methods(view)
    ]
    return _table(["arm", *tables.columns(view)], rows)


def _number(cell: tables.Cell) -> Markup:
    text = f"{cell.text} ± {cell.error}" if cell.error else cell.text
    shown = tag("b", text) if cell.best else Markup("{}").format(text)
    return tag("td", shown, *([tag("br"), tag("small", cell.note)] if cell.note else []))


def _accounts(run: RunRecord) -> Markup:
    total = sum(spent["flops"] for spent in run.spent.values()) or 1.0
    rows = [
        tag(
            "tr",
            tag("td", account),
            tag("td", f"{spent['supervised']:,}"),
            tag("td", f"{spent['processed']:,}"),
            tag("td", words.flops(spent["flops"])),
            tag("td", words.percent(spent["flops"] / total)),
        )
        for account, spent in run.spent.items()
        if spent["flops"]
    ]
    return _table(["account", "supervised tokens", "processed tokens", "FLOPs", "share"], rows)


def _table(names: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = tag("thead", tag("tr", *(tag("th", name) for name in names)))
    return tag("div", tag("table", head, tag("tbody", *rows)), style="overflow-x: auto")


def _key(arm: Arm) -> Markup:
    line = tag("path", d="M1 6H21", cls=f"line {arm.colour}")
    return tag("svg", line, mark(arm.mark, 11, 6, 3.8, cls=f"mark {arm.colour}"), viewBox="0 0 22 12", cls="key")
