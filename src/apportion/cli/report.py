"""`apportion report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from apportion._errors import ApportionError
from apportion.cli._options import Json, print_json


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run or comparison folders.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file. [default: report.html in the first folder]")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write no file: show the report in a browser, as the runs go on.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(help="Where --watch shows it, on this machine; 0 for any that is free. [default: 8765]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML file on one or more runs.

    With --watch nothing is written: a browser shows the page, and it follows the runs as they go on.
    """
    if watch:
        if out is not None:
            raise ApportionError("'--watch' writes no file: leave out '--out', or '--watch'.")
        _watch(runs, port, as_json)
        return
    if port is not None:
        raise ApportionError("'--port' goes with '--watch': add it, or leave '--port' out.")
    from apportion.reports import verdict_on, write_report

    path = write_report(runs[0] if len(runs) == 1 else runs, out)
    said = verdict_on(runs)
    if as_json:
        print_json({"report": str(path), "kind": said.kind, "verdict": said.headline, "details": said.details})
    else:
        typer.echo("\n".join([said.headline, *said.details, f"Report: {path}"]))


def _watch(runs: Sequence[Path], port: int | None, as_json: bool) -> None:
    from apportion.reports.watch import HERE, PORT, server

    with server(runs, PORT if port is None else port) as serving:
        address = f"http://{HERE}:{serving.server_port}/"
        if as_json:
            print_json({"address": address})
        else:
            typer.echo(f"Report: {address}\nIt follows the runs as they go on. Ctrl-C ends it.")
        serving.serve_forever()
