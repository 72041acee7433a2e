"""The one sentence at the top of a report, and what has to be said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from apportion.reports import words
from apportion.reports.view import Arm, View


@dataclass(frozen=True)
class Verdict:
    """``kind``: ``gain``, ``none`` (no gain, or none that the seeds can show), ``single`` or ``pending``."""

    kind: str
    headline: str
    details: list[str] = field(default_factory=list)


def apart(lower: Mapping[str, float] | None, higher: Mapping[str, float] | None, seeds: int) -> bool:
    """Return whether one range over seeds lies wholly below the other; one seed has no range, so never."""
    return lower is not None and higher is not None and seeds > 1 and lower["max"] < higher["min"]


def seeds_of(*arms: Arm) -> int:
    """Return the fewest finished runs of any of the arms."""
    return min(len(arm.finished) for arm in arms)


def verdict(view: View) -> Verdict:
    """Work out what the numbers say, and no more than that."""
    if len(view.arms) == 1:
        return _single(view.arms[0])
    ended = [arm for arm in view.arms if arm.numbers["final"]["macro"]]
    if len(ended) < 2:
        return Verdict("pending", "No verdict yet: fewer than two arms have finished and were validated.")
    base, candidate = view.baseline, view.candidate
    if base is None or candidate is None:
        return _ranking(ended, base is None)
    return _against(candidate, base)


def _single(arm: Arm) -> Verdict:
    run = arm.shown
    final = run.final
    tokens = words.count(run.supervised_tokens)
    if not run.finished:
        reached = f", at macro loss {words.loss(final['macro'])}" if final else ""
        return Verdict(
            "pending", f"{arm.name} has not finished: {tokens} supervised tokens trained on so far{reached}."
        )
    if not final or final.get("macro") is None:
        return Verdict("single", f"{arm.name} trained on {tokens} supervised tokens and was not validated.")
    macro = arm.numbers["final"]["macro"]
    over = f" ({_seeds(arm)}, {words.span(macro, words.loss)})" if len(arm.finished) > 1 else ""
    headline = f"{arm.name} ended at macro loss {words.loss(macro['mean'])}{over} after {tokens} supervised tokens."
    return Verdict(
        "single", headline, ["Nothing to compare it with: run uniform and proportional under the same budget."]
    )


def _ranking(ended: list[Arm], no_baseline: bool) -> Verdict:
    first, second = sorted(ended, key=lambda arm: arm.numbers["final"]["macro"]["mean"])[:2]
    ours, theirs = first.numbers["final"]["macro"], second.numbers["final"]["macro"]
    missing = "No plain baseline is among the arms" if no_baseline else "Every arm is a plain baseline"
    if apart(ours, theirs, seeds_of(first, second)):
        return Verdict(
            "none",
            f"{first.name} ended lowest, {_end(first)}; {second.name} came next, {_end(second)}.",
            [f"{missing}."],
        )
    text = f"No arm beats the others beyond the spread over seeds: {first.name} {_end(first)}, {second.name} {_end(second)}."
    return Verdict("none", text, [f"{missing}."])


def _against(candidate: Arm, base: Arm) -> Verdict:
    ours, theirs = candidate.numbers["final"]["macro"], base.numbers["final"]["macro"]
    seeds = seeds_of(candidate, base)
    tokens = candidate.numbers["tokens_to_best_of"][base.name]["macro"]
    flops = candidate.numbers["flops_to_best_of"][base.name]["macro"]
    ends = f"At the end: {candidate.name} {_end(candidate)}, {base.name} {_end(base)}."
    if tokens is not None and _sooner(tokens):
        text = (
            f"{candidate.name} reached {base.name}’s best macro loss with {_share(tokens)} of its tokens{_sure(tokens)}"
        )
        dear = flops is not None and flops["mean"] >= 1
        if dear:
            text += f", but with {words.percent(flops['mean'])} of its FLOPs"
        return Verdict("gain", text + ".", [ends, *([] if dear else _cost(candidate, base, flops)), *_one_seed(seeds)])
    if apart(ours, theirs, seeds):
        text = f"{candidate.name} ended below {base.name}, the best baseline, in every seed."
        return Verdict("gain", text, [ends, *_cost(candidate, base, flops)])
    if apart(theirs, ours, seeds):
        text = f"No gain: {base.name}, a plain baseline, ended below every other method."
        return Verdict("none", text, [ends, *_some(candidate, base, tokens)])
    text = f"No gain: no arm beats {base.name}, the best baseline, beyond the spread over seeds."
    if seeds == 1:
        text = f"No gain shown: one seed cannot tell {candidate.name} from {base.name}, the best baseline."
    return Verdict("none", text, [ends, *_some(candidate, base, tokens)])


def _sooner(tokens: Mapping[str, float]) -> bool:
    """Return whether every seed got there sooner, by more than the seeds differ; of one seed 5 % is asked."""
    spread = tokens["max"] - tokens["min"] if tokens["of"] > 1 else 0.05
    return tokens["reached"] == tokens["of"] and tokens["max"] < 1 and tokens["mean"] + spread < 1


def _end(arm: Arm) -> str:
    macro = arm.numbers["final"]["macro"]
    spread = words.span(macro, words.loss)
    return f"{words.loss(macro['mean'])} ({spread})" if spread else words.loss(macro["mean"])


def _seeds(arm: Arm) -> str:
    return words.several(len(arm.finished), "seed")


def _share(numbers: Mapping[str, float]) -> str:
    return words.percent(numbers["mean"])


def _sure(numbers: Mapping[str, float]) -> str:
    if numbers["of"] == 1:
        return " (one seed)"
    spread = words.span(numbers, words.percent)
    return f" ({words.several(int(numbers['of']), 'seed')}{', ' + spread if spread else ''})"


def _cost(candidate: Arm, base: Arm, flops: Mapping[str, float] | None) -> list[str]:
    if flops is None:
        return []
    share = f"{_share(flops)} of {base.name}’s FLOPs{_sure(flops)}"
    return [f"Counting every pass, {candidate.name}’s own included, it took {share}."]


def _some(candidate: Arm, base: Arm, tokens: Mapping[str, float] | None) -> list[str]:
    goal = f"{base.name}’s best macro loss"
    if tokens is None:
        return [f"{candidate.name} never reached {goal}."]
    reached = f"{tokens['reached']} of {words.several(int(tokens['of']), 'seed')}"
    return [f"{candidate.name} reached {goal} in {reached}, with {_share(tokens)} of its tokens on average."]


def _one_seed(seeds: int) -> list[str]:
    return ["One seed only: how far luck moves these numbers is not known."] if seeds == 1 else []
