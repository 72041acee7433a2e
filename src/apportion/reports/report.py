"""One self-contained HTML file from run folders: nothing is fetched, nothing is left out without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from apportion._errors import ApportionError
from apportion.reports import asked, bargains, figures, glossary, selections, tables, words
from apportion.reports.advice import advise
from apportion.reports.front import front_chart
from apportion.reports.svg import mark
from apportion.reports.verdict import verdict
from apportion.reports.view import Arm, View, load
from apportion.runs import atomic_write_text


def write_report(paths: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the report of a run, a comparison or several of them, and return its path.

    Args:
        paths: A run folder, a comparison folder (``<arm>/seed-<s>/``), or several of either.
        out: The file; ``report.html`` in the folder where there is only one.

    Raises:
        ApportionError: A path holds no run, several paths come without ``out``, or the file cannot be written.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not given:
        raise ApportionError("There is no run to report on: give at least one run folder.")
    if out is None and len(given) > 1:
        raise ApportionError("Say which file the report of several folders goes to.")
    target = Path(out) if out is not None else given[0] / "report.html"
    if out is not None and target.is_dir():
        raise ApportionError(f"'{target}' is a folder: name the report's file, such as '{target / 'report.html'}'.")
    view = load(given)
    atomic_write_text(target, render(view))
    return target


def render(view: View) -> str:
    """Return the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals.update(mark=mark, count=words.count, flops=words.flops, percent=words.percent)
    reference, targets, heat = tables.heat(view)
    ledger = tables.ledger(view)
    held = [row["name"] for entry in ledger for row in entry["rows"]]
    curves = [
        (metric, label, charts)
        for metric, label in figures.METRICS.items()
        if (view.targets or metric not in figures.OF_TARGETS)
        and (charts := [c for c in (figures.loss_chart(view, metric, total) for total in (False, True)) if c])
    ]
    return environment.from_string(_text("report.html")).render(
        view=view,
        title=_title(view),
        palette=Markup(_text("palette.css")),
        css=Markup(_text("report.css")),
        js=Markup(_text("report.js")),
        verdict=verdict(view),
        tiles=_tiles(view),
        asked=asked.asked(view),
        methods=tables.methods(view),
        columns=tables.columns(view),
        glossary=glossary.words_of(len(view.sizes)),
        account_words=[(name, glossary.ACCOUNTS[name]) for name in dict.fromkeys(held) if name in glossary.ACCOUNTS],
        front=front_chart(view),
        said_of_front=bargains.said_of_front(view, list(dict.fromkeys(held))),
        selecting=selections.selecting(view),
        kept=selections.kept(view),
        selected=selections.summed_up(view),
        of_the_pool=selections.OF_THE_POOL,
        advice=advise(view),
        curves=curves,
        mixtures=figures.mixture_charts(view),
        weighing=figures.weight_charts(view),
        size_chart=figures.size_chart(view),
        draws=tables.draws(view),
        targets=targets,
        heat=heat,
        heat_reference=reference,
        ledger=ledger,
        accounts=list(dict.fromkeys(held)),
        findings=asked.findings(view),
        recipes={arm.name: asked.recipe_text(arm) for arm in view.arms},
        footer=_footer(view),
    )


def _text(name: str) -> str:
    return resources.files("apportion.reports").joinpath(name).read_text("utf-8")


def _title(view: View) -> str:
    if len(view.arms) == 1:
        return f"A run of {view.arms[0].name}"
    arms = words.several(len(view.arms), "method")
    return f"{arms}, not under the same conditions" if view.differs else f"{arms} under one budget"


def _tiles(view: View) -> list[tuple[str, str, str]]:
    """Return the headline numbers as (what, number, against what)."""
    base, candidate = view.baseline, view.candidate
    if base is None or candidate is None or not base.numbers["final"][view.metric]:
        return _plain_tiles(view)
    tiles = []
    shares = (("Tokens", "tokens_to_best_of"), ("FLOPs", "flops_to_best_of"))
    for what, account in shares if verdict(view).kind == "gain" else ():
        share = candidate.numbers[account][base.name][view.metric]
        number = words.percent(share["mean"]) if share else "never"
        beside = f"{share['reached']} of {words.several(share['of'], 'seed')}" if share else ""
        spread = words.span(share, words.percent) if share else ""
        tiles.append((f"{what} to {base.name}’s best", number, ", ".join(part for part in (spread, beside) if part)))
    for metric in _headline_metrics(view):
        label = figures.METRICS[metric]
        ours, theirs = candidate.numbers["final"][metric], base.numbers["final"][metric]
        if ours and theirs:
            notes = [_error(candidate, metric), f"{base.name} {words.loss(theirs['mean'])} {_error(base, metric)}"]
            number = words.loss(ours["mean"])
            tiles.append((f"{label}, {candidate.name}", number, "; ".join(part.strip() for part in notes if part)))
    return tiles


def _headline_metrics(view: View) -> tuple[str, str]:
    return ("target", "others") if view.targets else ("macro", "worst")


def _error(arm: Arm, metric: str) -> str:
    error = arm.numbers["se"][metric]
    return "" if error is None else f"± {words.loss(error)}"


def _plain_tiles(view: View) -> list[tuple[str, str, str]]:
    if len(view.arms) > 1:
        return []
    run = view.arms[0].shown
    arm = view.arms[0]
    tiles = [
        (
            figures.METRICS[metric],
            words.loss(run.final[metric]),
            f"{_error(arm, metric)} at the end".strip() if run.finished else "so far",
        )
        for metric in _headline_metrics(view)
        if run.final.get(metric) is not None
    ]
    limit = run.ledger["budget"]["limit"] if run.ledger and run.ledger["budget"]["unit"] == "supervised" else None
    spent = f"of {words.count(limit)}" if limit else ""
    tiles.append(("Supervised tokens trained on", words.count(run.supervised_tokens), spent))
    tiles.append(("FLOPs", words.flops(run.total_flops), "every pass counted"))
    return tiles


def _footer(view: View) -> str:
    summary = next((run.summary for run in view.runs if run.summary), {})
    versions = ", ".join(f"{name} {number}" for name, number in (summary.get("versions") or {}).items())
    return (
        ". ".join(
            part
            for part in (f"Written by apportion from {words.several(len(view.runs), 'run folder')}", versions)
            if part
        )
        + "."
    )
