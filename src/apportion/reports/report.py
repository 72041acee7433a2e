"""One self-contained HTML file from run folders: nothing is fetched, nothing is left out without scripts."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from apportion._errors import ApportionError
from apportion.reports import words
from apportion.reports.sheet import Sheet, sheet_of
from apportion.reports.svg import mark
from apportion.reports.verdict import Verdict
from apportion.runs import atomic_write_text


def write_report(paths: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the report of a run, a comparison or several of them, and return its path.

    Several comparisons stand one below the other, under a table of all. Runs that are given one by one are compared with
    each other. Runs of reinforcement make a page of their own kind.

    Args:
        paths: A run folder, a comparison folder (``<arm>/seed-<s>/``), or several of either.
        out: The file; ``report.html`` in the folder where there is only one.

    Raises:
        ApportionError: A path holds no run, some runs are of reinforcement and some are not, several paths come without
            ``out``, or the file cannot be written.
    """
    given = _listed(paths)
    if not given:
        raise ApportionError("There is no run to report on: give at least one run folder.")
    if out is None and len(given) > 1:
        raise ApportionError("Say which file the report of several folders goes to.")
    target = Path(out) if out is not None else given[0] / "report.html"
    if out is not None and target.is_dir():
        raise ApportionError(f"'{target}' is a folder: name the report's file, such as '{target / 'report.html'}'.")
    with _no_collection():
        atomic_write_text(target, render(sheet_of(given), target.parent))
    return target


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: what is read has no cycles, and looking for some took a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def verdict_on(paths: str | Path | Sequence[str | Path]) -> Verdict:
    """Return the verdict that the report of these run or comparison folders opens with.

    Of several comparisons its details are the headline of each.

    Raises:
        ApportionError: A path holds no run, or some runs are of reinforcement and some are not.
    """
    return sheet_of(_listed(paths)).verdict


def render(sheet: Sheet, folder: Path) -> str:
    """Return the page that is to stand in ``folder``: links to the runs' files are relative to it."""
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        mark=mark,
        count=words.count,
        flops=words.flops,
        percent=words.percent,
        loss=words.loss,
        several=words.several,
        duration=words.duration,
    )
    laid = sheet.laid(folder)
    part = environment.get_template(laid.template)
    return environment.get_template("report.html").render(
        title=sheet.title,
        palette=Markup(_text("palette.css")),
        css=Markup(_text("report.css")),
        js=Markup(_text("report.js")),
        headline=sheet.verdict.headline,
        overview=laid.overview,
        parts=[Markup(part.render(**body)) for body in laid.bodies],
    )


def _listed(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]


def _text(name: str) -> str:
    return resources.files("apportion.reports").joinpath(name).read_text("utf-8")
