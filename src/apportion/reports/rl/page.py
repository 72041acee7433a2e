"""Everything that the page on reinforcement shows, worked out before it is laid out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from apportion.reports import glossary, words
from apportion.reports.asked import recipe_text
from apportion.reports.page import footer
from apportion.reports.rl import asked, figures, rollouts, tables
from apportion.reports.rl.arms import RlView
from apportion.reports.tables import generated, ledger
from apportion.reports.traced import linked
from apportion.reports.verdict import Verdict


def title(view: RlView) -> str:
    """Return what kind of page it is."""
    if len(view.runs) == 1:
        return f"Reinforcement by {view.arms[0].name}"
    arms = words.several(len(view.arms), "arm")
    return f"Reinforcement: {arms}, {words.several(len(view.runs), 'run')}"


def body(view: RlView, said: Verdict, folder: Path) -> dict[str, Any]:
    """Return what the template of the page needs, for a page that stands in ``folder``."""
    places = {arm.name: f"runs-{place}" for place, arm in enumerate(view.arms, 1)}
    entries = ledger(view.arms)
    held = list(dict.fromkeys(row["name"] for entry in entries for row in entry["rows"]))
    shown = rollouts.rollouts(view)
    return {
        "p": "",
        "level": 1,
        "name": "",
        "glossary": glossary.words_of(0),
        "view": view,
        "title": title(view),
        "verdict": said,
        "linked": partial(linked, places=places),
        "places": places,
        "asked": asked.asked(view),
        "answers_chart": figures.answers_chart(view),
        "area_chart": figures.area_chart(view),
        "lines": figures.lines(view),
        "columns": tables.columns(view),
        "answers": tables.answers(view),
        "training": figures.training_charts(view),
        "ledger": entries,
        "kinds": generated(entries),
        "accounts": held,
        "account_words": [(name, glossary.ACCOUNTS[name]) for name in held if name in glossary.ACCOUNTS],
        "rollouts": shown,
        "guessed": any(rollout.guessed for of in shown for rollout in of.rollouts),
        "runs": tables.runs(view, folder),
        "recipes": {arm.name: recipe_text(arm) for arm in view.arms},
        "footer": footer(view.runs),
    }
