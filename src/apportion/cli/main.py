"""`apportion`: the commands, and the one place where errors become an exit code."""

from __future__ import annotations

import os
import sys

import typer

from apportion import __version__
from apportion._errors import ApportionError
from apportion.cli import compare, plan, report, tasks, train

app = typer.Typer(
    help="Learn, while you fine-tune a language model, where each token of a fixed budget should go.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (tasks.tasks, plan.plan, train.train, compare.compare, report.report):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line: 0 done, 2 bad input (one sentence on stderr), 130 stopped by the user."""
    # Threads that wait must sleep, not spin: on a shared machine spinning makes small models tens of times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(standalone_mode=True)
    except ApportionError as error:
        typer.secho(f"apportion: {error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("\napportion: stopped. The same command goes on from the last checkpoint.", fg="yellow", err=True)
        sys.exit(130)
