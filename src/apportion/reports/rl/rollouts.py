"""Roll-outs as a person reads them: the problem, the thinking with its cuts, and what was answered at each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from apportion.reports import words
from apportion.reports.rl.arms import RlView
from apportion.reports.view import Arm
from apportion.runs import read_rollouts
from apportion.runs.reinforce import Cut, Rollout

_STEPS, _EACH = 3, 3  # the first, a middle and the last step that has some
_PROMPT, _SEGMENT, _ANSWER = 700, 800, 200  # characters


@dataclass(frozen=True)
class Segment:
    """A part of the thinking up to a cut: its text, its advantage in words, a shade in [-1, 1], and the cut behind it."""

    text: str
    advantage: str
    shade: float
    cut: str


@dataclass(frozen=True)
class AtCut:
    """What was answered at a cut: its mean reward, and each answer with how often it came and what it was worth."""

    budget: str
    reward: str
    answers: list[tuple[str, str]]


@dataclass(frozen=True)
class Shown:
    """A roll-out in words; ``guessed`` where its cuts are placed by the share of tokens, as the file does not say where."""

    place: str
    prompt: str
    reference: str
    segments: list[Segment]
    guessed: bool
    cuts: list[AtCut]
    answer: str


@dataclass(frozen=True)
class OfStep:
    """The roll-outs of one step of an arm's shown run."""

    arm: Arm
    step: int
    rollouts: list[Shown]


def rollouts(view: RlView) -> list[OfStep]:
    """Return a few roll-outs of the first, a middle and the last step that has some; with several arms of the last alone."""
    found = []
    for arm in view.arms:
        of_run = read_rollouts(arm.shown.path)
        steps = list(dict.fromkeys(rollout["step"] for rollout in of_run))
        chosen = sorted({steps[i * (len(steps) - 1) // (_STEPS - 1)] for i in range(_STEPS)}) if steps else []
        for step in chosen if len(view.arms) == 1 else chosen[-1:]:
            of_step = [rollout for rollout in of_run if rollout["step"] == step][:_EACH]
            found.append(OfStep(arm, step, [_shown(rollout) for rollout in of_step]))
    return found


def _shown(rollout: Rollout) -> Shown:
    prompt, thinking = rollout["prompt"], rollout["thinking"]
    ends, guessed = places(rollout)
    return Shown(
        _place(rollout),
        prompt if len(prompt) <= _PROMPT else "…" + prompt[1 - _PROMPT :],
        _cut(rollout["reference"]),
        _segments(thinking, rollout["cuts"], ends, rollout.get("advantages") or []),
        guessed,
        [_at_cut(cut) for cut in rollout["cuts"]],
        _cut(rollout["answer"]),
    )


def _place(rollout: Rollout) -> str:
    tokens = (rollout.get("tokens") or {}).get("thinking")
    parts = [
        str(rollout["task"]),
        _worth(rollout["reward"]),
        "" if tokens is None else f"{tokens:,} thinking tokens",
        "cut off" if rollout["forced"] else "closed by itself" if rollout["closed"] else "not closed",
    ]
    return ", ".join(part for part in parts if part)


def places(rollout: Rollout) -> tuple[list[int], bool]:
    """Return after how many characters of the thinking each cut stands, and whether any is only estimated.

    A cut that does not say stands at its budget's share of the thinking's tokens, which is exact where all are equally long.
    """
    length, tokens = len(rollout["thinking"]), (rollout.get("tokens") or {}).get("thinking") or 0
    ends: list[int] = []
    guessed = False
    for cut in rollout["cuts"]:
        at = cut.get("at")
        if at is None:
            at = round(length * min(cut["budget"] / tokens, 1.0)) if tokens else length
            guessed = guessed or 0 < at < length
        ends.append(min(max(at, ends[-1] if ends else 0), length))
    return ends, guessed


def _segments(thinking: str, cuts: Sequence[Cut], ends: Sequence[int], advantages: Sequence[float]) -> list[Segment]:
    """Return the parts between cuts, each with the advantage of its place; cuts without thinking between stand together."""
    most = max((abs(value) for value in advantages), default=0.0) or 1.0
    found: list[Segment] = []
    start = 0
    for place, (cut, end) in enumerate(zip(cuts, ends, strict=True)):
        value = advantages[place] if place < len(advantages) else None
        text, budget = thinking[start:end], f"{cut['budget']:,}"
        if not text and found:
            last = found.pop()
            found.append(Segment(last.text, last.advantage, last.shade, f"{last.cut}, {budget}"))
            continue
        said = "" if value is None else words.signed(value)
        found.append(Segment(_middle(text), said, (value or 0.0) / most, budget))
        start = end
    if start < len(thinking):
        found.append(Segment(_middle(thinking[start:]), "", 0.0, ""))
    return found


def _at_cut(cut: Cut) -> AtCut:
    known = [reward for reward in cut["rewards"] if reward is not None]
    mean = f"mean {_worth(sum(known) / len(known))}" if known else _worth(None)
    counted = Counter(zip((_cut(answer) for answer in cut["answers"]), cut["rewards"], strict=False))
    answers = [
        (answer or "(nothing)", f"{f'{often} times, ' if often > 1 else ''}{_worth(reward)}")
        for (answer, reward), often in counted.most_common()
    ]
    return AtCut(f"{cut['budget']:,}", mean, answers)


def _worth(reward: float | None) -> str:
    return "no reward" if reward is None else f"reward {reward:.3g}"


def _middle(text: str) -> str:
    return text if len(text) <= _SEGMENT else f"{text[: _SEGMENT // 2]} … {text[-_SEGMENT // 2 :]}"


def _cut(text: str) -> str:
    return text if len(text) <= _ANSWER else text[: _ANSWER - 1] + "…"
