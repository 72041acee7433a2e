"""The charts of a page on reinforcement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from markupsafe import Markup

from apportion.reports import words
from apportion.reports.charts import HEIGHT, NARROW, WIDE, Frame, Series, line_chart
from apportion.reports.figures import series_over_seeds
from apportion.reports.measured import chart, series, used
from apportion.reports.rl.arms import RlView, of_history, reached
from apportion.reports.svg import Point
from apportion.runs import RunRecord
from apportion.runs.curves import generated_tokens

_SAID: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("reward", "mean reward", words.loss),
    ("correct", "right answers", words.loss),
    ("thinking", "thinking tokens of a roll-out", used),
    ("forced", "roll-outs cut off", words.percent),
)


def lines(view: RlView) -> list[Series]:
    """Return the line before, and one of each arm."""
    found = [series("before", "b0", "circle", view.start)] if view.start else []
    drawn = [(arm, line) for arm in view.arms if (line := reached(arm))]
    return found + [series(_called(view, arm.name), arm.colour, arm.mark, line) for arm, line in drawn]


def answers_chart(view: RlView) -> Markup | None:
    """Draw right answers against thinking tokens used, before and after."""
    return chart("Right answers against thinking tokens used, before and after", "right answers", lines(view))


def area_chart(view: RlView) -> Markup | None:
    """Draw the area under accuracy over generated tokens, where it was measured more than once."""
    return _drawn("Area", "area under accuracy", words.loss, _over_seeds(view, _areas), WIDE)


def training_charts(view: RlView) -> list[Markup]:
    """Draw reward, right answers, thinking and what was cut off over generated tokens, wide if they fill rows of two."""
    found = [(said, shown) for said in _SAID if (shown := _over_seeds(view, partial(_read, key=said[0])))]
    width = WIDE if len(found) % 2 == 0 else NARROW
    charts = [_drawn(name, label, say, shown, width) for (name, label, say), shown in found]
    return [drawn for drawn in charts if drawn is not None]


def _called(view: RlView, name: str) -> str:
    if len(view.runs) > 1:
        return name
    return f"after {name}" if view.runs[0].finished else f"{name} so far"


def _read(run: RunRecord, key: str) -> list[Point]:
    known = [(float(generated_tokens(record["spent"])), record.get(key)) for record in run.history]
    return [(x, float(y)) for x, y in known if isinstance(y, int | float)]


def _areas(run: RunRecord) -> list[Point]:
    known = [(float(generated_tokens(r["spent"])), line.area) for r in run.history if (line := of_history([r]))]
    return [(x, y) for x, y in known if y is not None]


def _over_seeds(view: RlView, read: Callable[[RunRecord], list[Point]]) -> list[Series]:
    return [s for s in (series_over_seeds(arm, read) for arm in view.arms) if len(s.mean) > 1]


def _drawn(name: str, label: str, say: Callable[[float], str], shown: Sequence[Series], width: float) -> Markup | None:
    if not shown:
        return None
    ys = [y for s in shown for part in (s.mean, s.low, s.high) for _, y in part]
    margin = 0.12 * (max(ys) - min(ys)) or 0.05
    low = min(ys) - margin
    x = (0.0, max(s.mean[-1][0] for s in shown) or 1.0)
    # What is never below nothing has no axis below it.
    frame = Frame(
        x, (max(low, 0.0) if min(ys) >= 0 else low, max(ys) + margin), width, HEIGHT if width == WIDE else 270.0
    )
    names = (f"{name.capitalize()} over generated tokens", "generated tokens", label)
    return line_chart(frame, shown, names, (words.count, say))
