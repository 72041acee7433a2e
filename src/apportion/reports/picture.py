"""One small picture of a comparison, for a README: the curves, and the mixture that was learnt."""

from __future__ import annotations

from pathlib import Path

from apportion._errors import ApportionError
from apportion.reports.drawing import drawings, drawn, svg_file
from apportion.reports.view import load
from apportion.runs import atomic_write_text


def picture(root: str | Path, out: str | Path) -> Path:
    """Draw the loss that arms are judged by beside the learned mixture, as an SVG that follows dark mode.

    It is macro loss, or target loss where there are targets, against supervised tokens.

    Args:
        root: A comparison folder or a run folder.
        out: The file, ending in ``.svg``.

    Raises:
        ApportionError: ``out`` is no SVG file, or ``root`` holds no validated run or no mixture to draw.
    """
    out = svg_file(out)
    view = load([Path(root)])
    charts = drawings(view)
    if len(charts) < 2:
        raise ApportionError(f"There is nothing to draw in '{root}': no run has validation losses and a mixture.")
    atomic_write_text(out, drawn(view, charts))
    return out
