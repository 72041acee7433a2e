"""`apportion report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli._options import Json, print_json


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run or comparison folders.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file. [default: report.html in the first folder]")] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML file on one or more runs."""
    from apportion.reports import verdict_on, write_report

    path = write_report(runs[0] if len(runs) == 1 else runs, out)
    said = verdict_on(runs)
    if as_json:
        print_json({"report": str(path), "kind": said.kind, "verdict": said.headline, "details": said.details})
    else:
        typer.echo("\n".join([said.headline, *said.details, f"Report: {path}"]))
