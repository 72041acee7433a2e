"""A report that is served while runs go on: drawn anew when their folders have changed, to this machine alone."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markupsafe import Markup

from apportion._errors import ApportionError, shortened
from apportion.reports.files import links_of
from apportion.reports.report import render
from apportion.reports.sheet import sheet_of
from apportion.runs import RunRecord

HERE = "127.0.0.1"
PORT = 8765
# What a browser may call this machine: a page of elsewhere that has its own name pointed here is not answered.
_NAMES = (HERE, "localhost")
_READ = (".json", ".jsonl", ".yaml", ".parquet")
_WAITING = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{palette} body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem;
background: var(--page); color: var(--ink) }}</style></head>
<body><main><h1>{title}</h1><p>{said}</p><p>This page looks again every two seconds.</p></main>
</body></html>
""")


def version_of(paths: Sequence[Path]) -> str:
    """Return a digest that changes when a file that a report reads does: of names, sizes and times, without reading any."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        for folder in sorted(chain([path], path.glob("*/seed-*"))):
            digest.update(f"{folder}\x00{_stamps(folder)}\x00".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # A file that is written aside is renamed over the old one: hidden before, and new after.
                if entry.name.endswith(_READ) and not entry.name.startswith("."):
                    stat = entry.stat()
                    found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    except OSError as error:  # not there yet, or gone while it was looked at: that is what it is now
        found.append((error.strerror or "", 0, 0))
    return sorted(found)


class Live:
    """The page on some folders as they are now: the report, or in a sentence why there is none yet.

    Args:
        paths: Run or comparison folders, which need not be there yet.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [Path(path) for path in paths]
        self._lock = threading.Lock()
        self._drawn = ("", "")
        self._files: dict[str, Path] = {}

    def version(self) -> str:
        """Return what changes when the page has to be drawn anew."""
        return version_of(self._paths)

    def page(self) -> str:
        """Return the page, drawn if its folders have changed since it last was."""
        with self._lock:
            version = self.version()  # before the folders are read: what is written meanwhile makes another one
            if self._drawn[0] != version:
                self._drawn = (version, _served(self._draw(), version))
            return self._drawn[1]

    def file(self, address: str) -> Path | None:
        """Return the file of a run that the page links to by this address, None for anything else."""
        return self._files.get(address)

    def _draw(self) -> str:
        self._files = {}
        try:
            sheet = sheet_of(self._paths)
            root = _root(sheet.runs)
            page = render(sheet, root)
            self._files = {
                f"/{link}": root / unquote(link) for run in sheet.runs for _, link in links_of(run.path, root)
            }
            return page
        except ApportionError as error:
            return _waiting("Waiting for the first run", str(error))
        except Exception as error:  # of a folder that is half written; the next look may find it whole
            return _waiting("The report cannot be drawn", shortened(f"{type(error).__name__}: {error}", 400))


def _root(runs: Sequence[RunRecord]) -> Path:
    """Return the folder that all runs lie in: as seen from it, no link leads upwards."""
    return Path(os.path.commonpath([run.path.resolve().parent for run in runs]))


def _waiting(title: str, said: str) -> str:
    palette = resources.files("apportion.reports").joinpath("palette.css").read_text("utf-8")
    return str(_WAITING.format(title=title, said=said, palette=Markup(palette)))


def _served(page: str, version: str) -> str:
    """Return the page with the script that loads it again, which a written report does not have."""
    script = resources.files("apportion.reports").joinpath("watch.js").read_text("utf-8")
    head, end, tail = page.rpartition("</body>")
    return f"{head}<script>{script.replace('VERSION', json.dumps(version))}</script>\n{end}{tail}"


class _Handler(BaseHTTPRequestHandler):
    live: Live

    def do_GET(self) -> None:
        """Answer with the page, its version or a file of a run that the page links to, and with nothing else."""
        answers: dict[str, tuple[str, Callable[[], str]]] = {
            "/": ("text/html", self.live.page),
            "/version": ("text/plain", self.live.version),
        }
        kind, answer = answers.get(urlsplit(self.path).path, ("", str))
        if (file := self.live.file(self.path)) is not None:
            kind, answer = "text/plain", lambda: file.read_text("utf-8", "replace") if file.is_file() else ""
        if not kind or self.headers.get("Host", "").partition(":")[0] not in _NAMES:
            self._answer(404, "text/plain", "There is nothing here but the report and the files that it links to.\n")
        else:
            self._answer(200, kind, answer())

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # a reader who has left is no fault of the server's
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a look every two seconds is no news."""


def server(paths: Sequence[str | Path], port: int = PORT) -> ThreadingHTTPServer:
    """Return a server of the page, bound to this machine alone; ``serve_forever`` answers until it is shut down.

    Args:
        paths: Run or comparison folders, which need not be there yet.
        port: Where it listens; 0 for any that is free, which ``server_port`` says.

    Raises:
        ApportionError: The port is in use, or none that this user may take.
    """
    handler = type("Handler", (_Handler,), {"live": Live(paths)})
    if not 0 <= port <= 65535:
        raise ApportionError(f"'--port' is a number from 0 to 65,535, not {port}.")
    try:
        return ThreadingHTTPServer((HERE, port), handler)
    except OSError as error:
        raise ApportionError(
            f"Port {port} cannot be used: {(error.strerror or str(error)).lower()}. Give another with --port, or 0 for any."
        ) from None
