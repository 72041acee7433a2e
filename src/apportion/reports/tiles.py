"""The headline numbers at the top of a report."""

from __future__ import annotations

from apportion.reports import figures, words
from apportion.reports.traced import traced
from apportion.reports.verdict import Verdict
from apportion.reports.view import Arm, View

Tile = tuple[str, str, str]
"""What it is, the number, and against what; numbers are traced."""


def tiles(view: View, said: Verdict) -> list[Tile]:
    """Return the headline numbers, those of savings only where the verdict is a gain."""
    base, candidate = view.baseline, view.candidate
    if base is None or candidate is None or not base.numbers["final"][view.metric]:
        return _plain_tiles(view)
    found = []
    names = (candidate.name, base.name)
    shares = (("Tokens", "tokens_to_best_of"), ("FLOPs", "flops_to_best_of"))
    for what, account in shares if said.kind == "gain" else ():
        share = candidate.numbers[account][base.name][view.metric]
        number = words.percent(share["mean"]) if share else "never"
        beside = f"{share['reached']} of {words.several(share['of'], 'seed')}" if share else ""
        spread = words.span(share, words.percent) if share else ""
        note = ", ".join(part for part in (spread, beside) if part)
        found.append((f"{what} to {base.name}’s best", traced(number, *names), traced(note, *names)))
    for metric in _headline_metrics(view):
        label = figures.METRICS[metric]
        ours, theirs = candidate.numbers["final"][metric], base.numbers["final"][metric]
        if ours and theirs:
            goal = traced(f"{words.loss(theirs['mean'])} {_error(base, metric)}".strip(), base.name)
            notes = [
                traced(error, candidate.name) if (error := _error(candidate, metric)) else "",
                f"{base.name} {goal}",
            ]
            number = traced(words.loss(ours["mean"]), candidate.name)
            found.append((f"{label}, {candidate.name}", number, "; ".join(part for part in notes if part)))
    return found


def _headline_metrics(view: View) -> tuple[str, str]:
    return ("target", "others") if view.targets else ("macro", "worst")


def _error(arm: Arm, metric: str) -> str:
    error = arm.numbers["se"][metric]
    return "" if error is None else f"± {words.loss(error)}"


def _plain_tiles(view: View) -> list[Tile]:
    if len(view.arms) > 1:
        return []
    run = view.arms[0].shown
    arm = view.arms[0]
    name = arm.name
    found = [
        (
            figures.METRICS[metric],
            traced(words.loss(run.final[metric]), name),
            f"{traced(_error(arm, metric), name)} at the end".strip() if run.finished else "so far",
        )
        for metric in _headline_metrics(view)
        if run.final.get(metric) is not None
    ]
    limit = run.ledger["budget"]["limit"] if run.ledger and run.ledger["budget"]["unit"] == "supervised" else None
    spent = f"of {traced(words.count(limit), arm.name)}" if limit else ""
    found.append(("Supervised tokens trained on", traced(words.count(run.supervised_tokens), name), spent))
    found.append(("FLOPs", traced(words.flops(run.total_flops), name), "every pass counted"))
    return found
