"""The one exception users see: a clear sentence, what to do, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ApportionError(Exception):
    """Bad input, said in one sentence that names the place and the way out.

    The command line prints it and ends with exit code 2; in Python it is the only exception type that the
    library raises for something the user can mend.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the option closest to ``name``, or the list of options if none is close."""
    known = [str(option) for option in options]
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    if len(known) <= 24:
        return f" (known: {', '.join(known)})" if known else ""
    return f" ({len(known)} are known, none is near)"


def shortened(text: str, limit: int = 120) -> str:
    """Return ``text`` as one line of at most ``limit`` characters, so that a sentence stays one."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def shown(value: object) -> str:
    """Return a value as a sentence can hold it, however long it is."""
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):  # thousands of digits or of levels
        return f"a {type(value).__name__} too long to show"
