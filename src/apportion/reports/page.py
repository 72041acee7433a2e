"""Everything that one comparison's part of a report shows, worked out before it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from apportion.reports import (
    asked,
    bargains,
    downstream,
    figures,
    files,
    gains,
    glossary,
    kv,
    money,
    samples,
    selections,
    tables,
    thinking,
    tiles,
    words,
)
from apportion.reports.advice import advise
from apportion.reports.front import front_chart
from apportion.reports.traced import linked
from apportion.reports.verdict import Verdict
from apportion.reports.view import View
from apportion.runs import RunRecord


@dataclass(frozen=True)
class Page:
    """A comparison on the page: its name where there are several, what its ids start with, the level of its headline.

    ``verdict`` is what it opens with.
    """

    name: str
    prefix: str
    level: int
    view: View
    folder: Path
    verdict: Verdict

    @cached_property
    def places(self) -> dict[str, str]:
        """The id of the part of the table of runs that holds an arm's, by its name."""
        return {arm.name: f"{self.prefix}runs-{place}" for place, arm in enumerate(self.view.arms, 1)}

    def linked(self, sentence: str) -> str:
        """Return a sentence with its numbers linked to their runs."""
        return linked(sentence, self.places)


def body(page: Page) -> dict[str, Any]:
    """Return what the templates of a comparison need."""
    view = page.view
    return {
        "p": page.prefix,
        "level": page.level,
        "name": page.name,
        "view": view,
        "linked": page.linked,
        "places": page.places,
        "title": title(view),
        "verdict": page.verdict,
        "tiles": tiles.tiles(view, page.verdict),
        "glossary": glossary.words_of(len(view.sizes)),
        "footer": footer(view.runs),
        **_losses(view),
        **_tokens(view),
        **_record(page),
    }


def title(view: View) -> str:
    """Return what kind of page it is: a run, or so many methods under one budget."""
    if len(view.arms) == 1:
        return f"A run of {view.arms[0].name}"
    arms = words.several(len(view.arms), "method")
    return f"{arms}, not under the same conditions" if view.differs else f"{arms} under one budget"


def _losses(view: View) -> dict[str, Any]:
    reference, targets, heat = tables.heat(view)
    subject = gains.compared(view)
    bars = gains.bars(gains.changes(view, subject)) if subject else []
    held = list(dict.fromkeys(row["name"] for entry in tables.ledger(view.arms) for row in entry["rows"]))
    return {
        "methods": tables.methods(view),
        "columns": tables.columns(view),
        "front": front_chart(view),
        "said_of_front": bargains.said_of_front(view, held),
        "targets": targets,
        "heat": heat,
        "heat_reference": reference,
        "subject": subject,
        "bars": bars,
        "bar_ends": gains.ends(bars),
        "said_of_gains": gains.said(view),
        "downstream": downstream.table(view),
        "samples": samples.samples(view),
        "kv_curves": kv.kv_curves(view),
        "thinking_curves": thinking.thinking_curves(view),
        "evaluations": figures.evaluation_charts(view),
        "curves": [
            (metric, label, charts)
            for metric, label in figures.METRICS.items()
            if (view.targets or metric not in figures.OF_TARGETS)
            and (charts := [c for c in (figures.loss_chart(view, metric, total) for total in (False, True)) if c])
        ],
    }


def _tokens(view: View) -> dict[str, Any]:
    return {
        "selecting": selections.selecting(view),
        "kept": selections.kept(view),
        "selected": selections.summed_up(view),
        "of_the_pool": selections.OF_THE_POOL,
        "mixtures": figures.mixture_charts(view),
        "weighing": figures.weight_charts(view),
        "size_chart": figures.size_chart(view),
        "money_chart": money.money_chart(view),
        "said_of_money": money.said_of_money(view),
        "draws": tables.draws(view),
    }


def _record(page: Page) -> dict[str, Any]:
    view = page.view
    ledger = tables.ledger(view.arms)
    held = list(dict.fromkeys(row["name"] for entry in ledger for row in entry["rows"]))
    return {
        "asked": asked.asked(view),
        "advice": advise(view),
        "ledger": ledger,
        "kinds": tables.generated(ledger),
        "accounts": held,
        "account_words": [(name, glossary.ACCOUNTS[name]) for name in held if name in glossary.ACCOUNTS],
        "runs": files.runs(view, page.folder),
        "findings": asked.findings(view),
        "recipes": {arm.name: asked.recipe_text(arm) for arm in view.arms},
    }


def footer(runs: Sequence[RunRecord]) -> str:
    """Return what the page was written from, and by which versions."""
    summary = next((run.summary for run in runs if run.summary), {})
    versions = ", ".join(f"{name} {number}" for name, number in (summary.get("versions") or {}).items())
    return (
        ". ".join(
            part for part in (f"Written by apportion from {words.several(len(runs), 'run folder')}", versions) if part
        )
        + "."
    )
