"""`apportion`: the commands, and the one place where errors become an exit code."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from apportion import __version__
from apportion._errors import ApportionError
from apportion.cli import (
    compare,
    curve,
    evaluate,
    export,
    generate,
    hypernet,
    init,
    plan,
    profile,
    reinforce,
    report,
    select,
    tasks,
    train,
)

_PATIENCE = 3.0  # seconds
_STOPPED = 130  # what typer makes of Ctrl-C, and what shells expect

app = typer.Typer(
    help="Learn, while you fine-tune a language model, where each token of a fixed budget should go.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    init.init,
    tasks.tasks,
    plan.plan,
    train.train,
    compare.compare,
    select.select,
    evaluate.evaluate,
    generate.generate,
    curve.curve,
    profile.profile,
    reinforce.reinforce,
    report.report,
    export.export,
):
    app.command()(command)
app.add_typer(hypernet.hypernet, name="hypernet")


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
    for name in ("HF_HUB_VERBOSITY", "DATASETS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, which read this when they are imported
    arguments = sys.argv[1:] or ["--help"]
    stopped = "stopped."
    if arguments[0] in ("train", "compare", "reinforce"):
        stopped += " The same command goes on from the last checkpoint."
    elif arguments[0] == "select":
        stopped += " The same command goes on with what is not scored yet."
    elif arguments[0] in ("generate", "curve"):
        stopped += " The same command goes on with what is not answered yet."
    elif arguments[0] == "evaluate":
        stopped += " The same command goes on with the tasks that are left."
    try:
        with _interruptible(stopped):
            code = app(arguments, prog_name="apportion", standalone_mode=False)
    except ApportionError as error:
        _end(str(error), 2)
    except TyperException as error:
        _end(_usage(error), 2)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        # Of what libraries read and write on our behalf: their caches, their temporary files.
        _end(f"'{error.filename}' cannot be used: {error.strerror}. See to its permissions and the disk's space.", 2)
    if code == _STOPPED:
        _end(stopped, _STOPPED)
    sys.exit(code or 0)


@contextmanager
def _interruptible(sentence: str) -> Iterator[None]:
    """End the process some seconds after Ctrl-C where a library's compiled loop, as a tokenizer's training, sits it out.

    Files are whole at every moment, so that nothing is lost by ending there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    over = threading.Event()

    def watch() -> None:
        while (number := os.read(told, 1)) and number != bytes([signal.SIGINT]):
            pass
        os.close(told)
        if number and not over.wait(_PATIENCE):
            _say(sentence, _STOPPED)
            os._exit(_STOPPED)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(tell)


def _end(sentence: str, code: int) -> NoReturn:
    _say(sentence, code)
    sys.exit(code)


def _say(sentence: str, code: int) -> None:
    text = f"apportion: {sentence}"
    if sys.stderr.isatty():
        # A terminal would break words; a log keeps its line.
        text = textwrap.fill(text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    typer.secho(text, fg="yellow" if code == _STOPPED else "red", err=True)


def _usage(error: TyperException) -> str:
    message = error.format_message().partition(", unable to parse")[0].rstrip(".")
    context = getattr(error, "ctx", None)
    end = "" if message.endswith("?") else "."
    return f"{message}{end} See '{context.command_path if context else 'apportion'} --help'."
