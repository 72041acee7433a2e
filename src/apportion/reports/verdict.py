"""The one sentence at the top of a report, and what has to be said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from apportion.reports import goals, moves, sources, words
from apportion.reports.certainty import on_examples, uncertainty, why_not
from apportion.reports.gap import Gap, gap_between
from apportion.reports.traced import plain, traced
from apportion.reports.view import Arm, View

_ALIKE = "To compare methods, run them under one budget, on the same data, model, lengths and validation."


@dataclass(frozen=True)
class Verdict:
    """What the numbers say: a headline, and what has to be said beside it.

    ``kind``: ``gain``, ``none`` (no gain, or none that is shown), ``unequal``, ``single``, ``pending``, or ``several``
    for several comparisons. In ``head`` and ``rest`` each number is `traced` to its arms.
    """

    kind: str
    head: str
    rest: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The one sentence, as people read it."""
        return plain(self.head)

    @property
    def details(self) -> list[str]:
        """The other sentences, as people read them."""
        return [plain(sentence) for sentence in self.rest]


def apart(lower: Mapping[str, float] | None, higher: Mapping[str, float] | None, seeds: int) -> bool:
    """Return whether one range over seeds lies wholly below the other; one seed has no range, so never."""
    return lower is not None and higher is not None and seeds > 1 and lower["max"] < higher["min"]


def seeds_of(*arms: Arm) -> int:
    """Return the fewest finished runs of any of the arms."""
    return min(len(arm.finished) for arm in arms)


def together(found: Mapping[str, Verdict]) -> Verdict:
    """Return the one verdict there is, or how many of several comparisons show a gain, with the headline of each."""
    if len(found) == 1:
        return next(iter(found.values()))
    gains = sum(said.kind == "gain" for said in found.values())
    head = f"{words.several(len(found), 'comparison')}, of which {gains or 'none'} show{'s' * (gains < 2)} a gain."
    return Verdict("several", head, [f"{name}: {said.head}" for name, said in found.items()])


def verdict(view: View) -> Verdict:
    """Work out what the numbers say, and no more than that; see `gap_between` for what counts as shown."""
    if len(view.arms) == 1:
        return _single(view.arms[0], view)
    if view.differs:
        differs = [traced(what, *(arm.name for arm in view.arms)) for what in view.differs]
        return Verdict("unequal", f"No verdict: the runs differ in {words.together(differs)}.", [_ALIKE])
    ended = [arm for arm in view.arms if arm.numbers["final"][view.metric]]
    if len(ended) < 2:
        return Verdict("pending", "No verdict yet: fewer than two arms have finished and were validated.")
    base, candidate = view.baseline, view.candidate
    if base is None or candidate is None:
        found = _ranking(ended, base is None, view)
    else:
        found = _against(candidate, base, view)
    moved = moves.moved(candidate, base) if candidate and base else []
    return replace(found, rest=[*moved, *_worth(candidate, view), *found.rest, *_aim(view)])


def _worth(candidate: Arm | None, view: View) -> list[str]:
    return sources.worth_it(candidate, view.targets) if candidate and view.targets else []


def _aim(view: View) -> list[str]:
    """Return how well targets are measured, or why arms that have some are not judged by them."""
    if view.targets or not any(run.targets for run in view.runs):
        return goals.measured(view)
    return ["Not all arms have the same targets, so they are compared by macro loss."]


def _to(view: View) -> str:
    return f" toward {_toward(view)}" if view.targets else ""


def _toward(view: View) -> str:
    return goals.toward(view.targets, *(arm.name for arm in view.arms))


def _single(arm: Arm, view: View) -> Verdict:
    run = arm.shown
    final = run.final
    tokens = traced(words.count(run.supervised_tokens), arm.name)
    if not run.finished:
        reached = f", at {view.loss_name} {traced(words.loss(final[view.metric]), arm.name)}" if final else ""
        return Verdict(
            "pending", f"{arm.name} has not finished: {tokens} supervised tokens trained on so far{reached}."
        )
    if not final or final.get(view.metric) is None:
        return Verdict("single", f"{arm.name} trained on {tokens} supervised tokens and was not validated.")
    ended = arm.numbers["final"][view.metric]
    over = f" ({_seeds(arm)}, {words.span(ended, words.loss)})" if len(arm.finished) > 1 else ""
    at = f"{view.loss_name} {traced(words.loss(ended['mean']) + over, arm.name)}{_to(view)}"
    headline = f"{arm.name} ended at {at} after {tokens} supervised tokens."
    alone = "Nothing to compare it with: run uniform and proportional under the same budget."
    return Verdict("single", headline, [*_worth(arm, view), *goals.others(arm), *goals.measured(view), alone])


def _ranking(ended: list[Arm], no_baseline: bool, view: View) -> Verdict:
    first, second = sorted(ended, key=lambda arm: arm.numbers["final"][view.metric]["mean"])[:2]
    missing = "No plain baseline is among the arms." if no_baseline else "Every arm is a plain baseline."
    gap = gap_between(first, second, view.targets)
    sure = [*uncertainty(gap, view, first, second), *goals.others(first, second)]
    end = partial(_end, metric=view.metric)
    if gap is not None and gap.shown:
        text = f"{first.name} ended lowest{_to(view)}, {end(first)}; {second.name} came next, {end(second)}."
        return Verdict("none", text, [*sure, missing])
    text = f"No arm is shown to be better{_to(view)}: {first.name} {end(first)}, {second.name} {end(second)}."
    return Verdict("none", text, [*why_not(gap, first, second), *sure, missing])


def _against(candidate: Arm, base: Arm, view: View) -> Verdict:
    tokens = candidate.numbers["tokens_to_best_of"][base.name][view.metric]
    flops = candidate.numbers["flops_to_best_of"][base.name][view.metric]
    end = partial(_end, metric=view.metric)
    ends = f"At the end: {candidate.name} {end(candidate)}, {base.name} {end(base)}."
    gap = gap_between(candidate, base, view.targets)
    sure = [*uncertainty(gap, view, candidate, base), *goals.others(candidate, base)]
    if gap is None:
        return Verdict("none", f"No verdict: {candidate.name} and {base.name} have no seed in common.", [ends])
    if not gap.shown:
        # A share of tokens says no more than the gap: what a task or a few examples decide is not repeated as one.
        reached = [] if gap.alone or gap.handful else _some(candidate, base, tokens, view)
        why = why_not(gap, candidate, base)
        return Verdict("none", _not_shown(candidate, base, gap, view), [*why, ends, *sure, *reached])
    if gap.estimate.mean < 0:
        text = f"No gain{_to(view)}: {base.name}, a plain baseline, ended below every other method."
        return Verdict("none", text, [ends, *sure, *_some(candidate, base, tokens, view)])
    if view.targets:
        reached = _reach(candidate, base, tokens, flops, view)
        return Verdict("gain", _nearer(candidate, base, view), [ends, *sure, *reached])
    if tokens is None or tokens["reached"] < tokens["of"] or tokens["max"] >= 1:
        by = traced(words.loss(abs(gap.estimate.mean)), candidate.name, base.name)
        text = f"{candidate.name} ended below {base.name}, the best baseline, by {by} in macro loss."
        return Verdict("gain", text, [ends, *sure, *_cost(candidate, base, flops)])
    share = traced(_share(tokens), candidate.name, base.name)
    text = f"{candidate.name} reached {base.name}’s best macro loss with {share} of its tokens"
    text += _sure(tokens, candidate, base)
    dear = flops is not None and flops["mean"] >= 1
    if dear:
        text += f", but with {traced(_share(flops), candidate.name, base.name)} of its FLOPs"
    return Verdict("gain", text + ".", [ends, *sure, *([] if dear else _cost(candidate, base, flops))])


def _nearer(candidate: Arm, base: Arm, view: View) -> str:
    """Return the headline of a gain toward targets: the two losses, and the one as a share of the other."""
    ours, theirs = (arm.numbers["final"]["target"]["mean"] for arm in (candidate, base))
    share = f"{traced(words.percent(ours / theirs), candidate.name, base.name)} of" if theirs > 0 else "below"
    goal = traced(words.loss(theirs), base.name)
    ended = f"{candidate.name} ended at {traced(words.loss(ours), candidate.name)}, {share} the {goal} of {base.name}"
    return f"Toward {_toward(view)}, {ended}, the best baseline."


def _reach(
    candidate: Arm,
    base: Arm,
    tokens: Mapping[str, float] | None,
    flops: Mapping[str, float] | None,
    view: View,
) -> list[str]:
    """Return with how much of the baseline's tokens and FLOPs its best target loss was reached."""
    if tokens is None or flops is None or tokens["reached"] < tokens["of"]:
        return _some(candidate, base, tokens, view)
    shares = [
        f"{traced(_share(numbers), candidate.name, base.name)} of its {what}{_sure(numbers, candidate, base)}"
        for what, numbers in (("tokens", tokens), ("FLOPs", flops))
    ]
    spent = words.together(shares)
    return [f"{candidate.name} reached {base.name}’s best target loss with {spent}, every pass counted."]


def _not_shown(candidate: Arm, base: Arm, gap: Gap, view: View) -> str:
    """Return the headline of a gap that may not be called one."""
    lower = gap.estimate.mean > 0
    first, second = (candidate, base) if lower else (base, candidate)
    by = traced(words.loss(abs(gap.estimate.mean)), first.name, second.name)
    ended = f"{first.name} ended {by} below {second.name}"
    ended += ", the best baseline," if lower else f" in {view.loss_name},"
    if gap.alone:
        part = next(part for part in gap.parts if part.task == gap.alone)
        share = traced(words.percent(gap.share(part)), first.name, second.name)
        makes = f"task {part.task} makes {share} of that" if gap.share(part) > 0 else ""
        return f"Not shown: {ended} but {makes or f'not without task {part.task}'}{on_examples(part, first, second)}."
    if gap.handful:
        return f"Not shown{_to(view)}: {ended} but a handful of validation examples decides that."
    if gap.estimate.beyond:
        return f"Not shown{_to(view)}: {ended} (one seed), and how far luck moves one seed is not known."
    beyond = f"no arm beats {base.name}, the best baseline, beyond the spread of seeds and examples"
    return f"No gain shown{_to(view)}: {beyond}."


def _end(arm: Arm, metric: str) -> str:
    return traced(words.mean(arm.numbers["final"][metric], words.loss), arm.name)


def _seeds(arm: Arm) -> str:
    return words.several(len(arm.finished), "seed")


def _share(numbers: Mapping[str, float]) -> str:
    return words.percent(numbers["mean"])


def _sure(numbers: Mapping[str, float], *arms: Arm) -> str:
    if numbers["of"] == 1:
        return " (one seed)"
    spread, seeds = words.span(numbers, words.percent), words.several(int(numbers["of"]), "seed")
    return f" ({traced(f'{seeds}, {spread}' if spread else seeds, *(arm.name for arm in arms))})"


def _cost(candidate: Arm, base: Arm, flops: Mapping[str, float] | None) -> list[str]:
    if flops is None:
        return []
    share = traced(_share(flops), candidate.name, base.name)
    share += f" of {base.name}’s FLOPs{_sure(flops, candidate, base)}"
    return [f"Counting every pass, {candidate.name}’s own included, it took {share}."]


def _some(candidate: Arm, base: Arm, tokens: Mapping[str, float] | None, view: View) -> list[str]:
    goal = f"{base.name}’s best {view.loss_name}"
    if tokens is None:
        return [f"{candidate.name} never reached {goal}."]
    names = (candidate.name, base.name)
    reached = traced(f"{tokens['reached']} of {words.several(int(tokens['of']), 'seed')}", *names)
    share = traced(_share(tokens), *names)
    return [f"{candidate.name} reached {goal} in {reached}, with {share} of its tokens on average."]
