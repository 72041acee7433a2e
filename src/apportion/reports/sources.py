"""Which sources a learnt mixture found worth it, in words: where it ended against where it started, seed by seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from apportion.reports import words
from apportion.reports.view import Arm

MUCH, LITTLE = 3.0, 1 / 3  # ended with so many times the starting share: worth it, not worth it
_NAMED = 8

Shares = Mapping[str, float]


def worth_it(arm: Arm, targets: Collection[str]) -> list[str]:
    """Return which sources the finished runs of an arm ended on; nothing where its mixture is plain, or not written."""
    runs = [
        (run.history[0]["mixture"], run.mixture)
        for run in arm.finished
        if not run.methods["mixture"]["plain"] and run.mixture and run.history and "mixture" in run.history[0]
    ]
    if not runs:
        return []
    starts = [start for start, _ in runs]
    ends, tokens = [mixture["final"] for _, mixture in runs], [mixture["token_averaged"] for _, mixture in runs]
    return [*told_apart(arm.name, starts, ends, tokens, targets), *_own(tokens, targets)]


def told_apart(
    name: str, starts: Sequence[Shares], ends: Sequence[Shares], tokens: Sequence[Shares], targets: Collection[str]
) -> list[str]:
    """Return in words which sources ended with much more or much less than their starting share.

    A source counts where all seeds agree: each ended with `MUCH` times its starting share or more, or with under `LITTLE`
    of it. How many only some seeds say so of is said too.

    Args:
        name: Of the arm.
        starts: By seed, the share of the draws each task had at the start.
        ends: By seed, the share it ended with.
        tokens: By seed, its share of all supervised tokens that were trained on.
        targets: Tasks that are no sources.
    """
    sources = [task for task in starts[0] if task not in targets and all(start.get(task, 0) > 0 for start in starts)]
    times = {
        task: [end.get(task, 0.0) / start[task] for start, end in zip(starts, ends, strict=True)] for task in sources
    }
    if len(times) < 2:
        return []
    order = sorted(times, key=lambda task: fmean(times[task]), reverse=True)
    much = [task for task in order if min(times[task]) >= MUCH]
    little = [task for task in reversed(order) if max(times[task]) < LITTLE]
    torn = [task for task in order if task not in (*much, *little) and _beyond(times[task])]
    when = {1: "in the one seed run", 2: "in both seeds"}.get(len(starts), f"in all {len(starts)} seeds")
    rise = f"The largest rise: {_from_to(order[0], starts, ends)}"
    if not much and not little:
        said = (
            f"{name} told no source clearly apart: none ended above three times or under a third of its starting share"
        )
        return [f"{said} {when}. {rise}; the largest fall: {_from_to(order[-1], starts, ends)}.", *_disagreement(torn)]
    found = []
    if much:
        part = words.percent(fmean(sum(seed.get(task, 0.0) for task in much) for seed in tokens))
        share = f"above three times {_their(much)} starting share {when}"
        found.append(f"Worth it, says {name}: {_names(much)} ended {share}, {part} of all tokens trained on.")
    if little:
        share = f"under a third of {_their(little)} starting share {when}"
        found.append(f"Not worth it, says {name}: {_names(little)} ended {share}.{'' if much else f' {rise}.'}")
    return [*found, *_disagreement(torn)]


def _beyond(times: Sequence[float]) -> bool:
    return any(factor >= MUCH or factor < LITTLE for factor in times)


def _disagreement(torn: Sequence[str]) -> list[str]:
    return [f"The seeds do not agree on {_names(torn)}."] if torn else []


def _from_to(task: str, starts: Sequence[Shares], ends: Sequence[Shares]) -> str:
    before, after = (words.percent(fmean(seed.get(task, 0.0) for seed in shares)) for shares in (starts, ends))
    return f"{task}, from {before} of the draws to {after}"


def _own(tokens: Sequence[Shares], targets: Collection[str]) -> list[str]:
    if not any(task in targets for task in tokens[0]):
        return []
    part = words.percent(fmean(sum(share for task, share in seed.items() if task in targets) for seed in tokens))
    return [f"The targets’ own examples were {part} of the tokens trained on."]


def _names(tasks: Sequence[str]) -> str:
    named = list(tasks[:_NAMED])
    return words.together(named) if len(tasks) <= _NAMED else words.listing(list(tasks), _NAMED)


def _their(tasks: Sequence[str]) -> str:
    return "its" if len(tasks) == 1 else "their"
