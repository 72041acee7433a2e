"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from apportion.runs.numbers import NONE, count, loss

__all__ = [
    "NONE",
    "clock",
    "count",
    "duration",
    "epochs",
    "flops",
    "listing",
    "loss",
    "mean",
    "percent",
    "power",
    "several",
    "signed",
    "size",
    "span",
    "tick",
]

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def flops(value: float | None) -> str:
    """Return FLOPs in powers of ten: 1.2×10¹⁵."""
    if value is None:
        return NONE
    if value < 1e3:
        return f"{value:.0f}"
    exponent = math.floor(math.log10(value))
    mantissa = value / 10**exponent
    if round(mantissa, 1) >= 10:
        mantissa, exponent = mantissa / 10, exponent + 1
    return f"{mantissa:.1f}{power(exponent)}"


def size(bytes_held: float | None) -> str:
    """Return bytes in powers of a thousand: 1.2 MB."""
    if bytes_held is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_held >= scale:
            return f"{bytes_held / scale:.3g} {unit}"
    return f"{bytes_held:.0f} bytes"


def power(exponent: int) -> str:
    """Return a power of ten as a factor: ×10¹⁵."""
    return f"×10{str(exponent).translate(_SUPERSCRIPT)}"


def tick(value: float) -> str:
    """Return a number on an axis, with no more digits than it has."""
    return f"{value:g}"


def epochs(value: float) -> str:
    """Return a number of epochs: 0.07, 2.4, 31."""
    if 0 < value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def percent(value: float | None) -> str:
    """Return a share as a percentage, with a decimal below ten: 61 %, 3.2 %."""
    if value is None:
        return NONE
    hundredth = 100 * value
    return f"{hundredth:.0f} %" if hundredth >= 9.95 or hundredth == 0 else f"{hundredth:.1f} %"


def duration(seconds: float | None) -> str:
    """Return seconds as 8.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def clock(seconds: float | None) -> str:
    """Return seconds as 0:08, 3:20, 2:05:00."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def signed(value: float) -> str:
    """Return a difference with its sign: +0.031, −0.120."""
    return f"{value:+.3f}".replace("-", "−")


def span(numbers: Mapping[str, float], say: Callable[[float], str]) -> str:
    """Return the range of ``{"min", "max"}`` in the words of ``say``, "" if both ends read the same."""
    low, high = say(numbers["min"]), say(numbers["max"])
    if low == high:
        return ""
    return f"{low.removesuffix(' %')}–{high}" if low.endswith(" %") else f"{low}–{high}"


def mean(numbers: Mapping[str, float], say: Callable[[float], str]) -> str:
    """Return the mean of ``{"mean", "min", "max"}`` in the words of ``say``, with the range where there is one."""
    spread = span(numbers, say)
    return f"{say(numbers['mean'])} ({spread})" if spread else say(numbers["mean"])


def several(number: int, thing: str) -> str:
    """Return "1 seed", "3 seeds"."""
    return f"{number} {thing}" if number == 1 else f"{number:,} {thing}s"


def together(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def listing(names: list[str], limit: int = 4, say: Callable[[str], str] = str) -> str:
    """Return "a, b and 3 more", with "3 more" in the words of ``say``."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {say(f'{len(names) - limit} more')}"
