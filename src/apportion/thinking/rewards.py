"""What an answer is worth: right, well formed, and not longer thought about than the budget wants.

Each reward here is also one of TRL's: a function of ``completions`` and columns of the data set, which returns a list of
floats, None for a row that is not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, model_validator

from apportion._config import Config
from apportion.thinking.tags import ThinkingTags

Reward = Callable[..., list[float | None]]


class LengthReward(Config):
    """What a right answer loses by long thinking.

    Attributes:
        weight: Lost at the whole budget.
        free: Share of the budget that costs nothing.
    """

    weight: float = Field(default=0.5, ge=0)
    free: float = Field(default=0.5, ge=0, lt=1)


class Rewards(Config):
    """The recipe's ``rl.rewards``: what is added up for an answer.

    With c whether it is right, f whether it is well formed, l tokens of thinking and B the budget,

        R = accuracy * c + format * f - length.weight * c * max(0, l - free B) / (B - free B)

    The length touches right answers alone, so that a short wrong one gains nothing over a long wrong one; and a right one is
    always worth more than a wrong one, which is checked. The papers give no formula for theirs: this is ours.

    Attributes:
        accuracy: For the right answer, behind one close tag.
        format: For one close tag and an answer behind it.
        length: What long thinking costs, None for nothing.
    """

    accuracy: float = Field(default=1.0, gt=0)
    format: float = Field(default=0.0, ge=0)
    length: LengthReward | None = None

    @model_validator(mode="after")
    def _right_wins(self) -> Rewards:
        if self.length is not None and self.accuracy - self.length.weight <= self.format:
            raise ValueError(
                f"a right answer could be worth no more than a wrong one: 'accuracy' less 'length.weight' is "
                f"{self.accuracy - self.length.weight:g}, and must be more than 'format', which is {self.format:g}"
            )
        return self

    def worth(self, *, right: bool, formed: bool, thinking: int, budget: int | None) -> float:
        """Return R of an answer.

        Args:
            right: c.
            formed: f.
            thinking: l, in tokens.
            budget: B, in tokens; None for no limit, to which no length is too long.
        """
        long = 0.0
        if self.length is not None and budget:
            free = self.length.free * budget
            long = self.length.weight * max(0.0, thinking - free) / (budget - free)
        return self.accuracy * right + self.format * formed - long * right


def judged(text: str, tags: ThinkingTags, references: Sequence[str]) -> tuple[bool, bool]:
    """Return whether a text behind an open tag holds one of the answers wanted, and whether it is well formed.

    Well formed are exactly one close tag, and something behind it; empty thinking is no fault. What is right is well formed:
    an answer behind a second tag is none.
    """
    _, closed, answer = text.partition(tags.close)
    if tags.answer is not None:
        answer = answer.strip().removeprefix(tags.answer)
    formed = bool(closed) and tags.close not in answer and bool(answer.strip())
    return formed and answer.strip() in {reference.strip() for reference in references}, formed


def exact_answer(tags: ThinkingTags) -> Reward:
    """Return the reward of a right answer: 1.0 or 0.0, None where a row has no ``reference``."""

    def exact_answer_reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:  # noqa: ANN401
        wanted = columns.get("reference") or [None] * len(completions)
        return [
            None if references is None else float(judged(_text(one), tags, _several(references))[0])
            for one, references in zip(completions, wanted, strict=True)
        ]

    return exact_answer_reward


def well_formed(tags: ThinkingTags) -> Reward:
    """Return the reward of a well formed answer: 1.0 or 0.0."""

    def well_formed_reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:  # noqa: ANN401
        return [float(judged(_text(one), tags, ())[1]) for one in completions]

    return well_formed_reward


def budget_length(
    tags: ThinkingTags, budget: int, count: Callable[[str], int], length: LengthReward | None = None
) -> Reward:
    """Return what a right answer loses by long thinking, zero or less; None where a row has no ``reference``.

    Args:
        tags: Of the thinking.
        budget: B, in tokens.
        count: Counts the tokens of a text.
        length: How much it is.
    """
    block = Rewards(length=length or LengthReward())

    def budget_length_reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:  # noqa: ANN401
        wanted = columns.get("reference") or [None] * len(completions)
        found: list[float | None] = []
        for one, references in zip(completions, wanted, strict=True):
            if references is None:
                found.append(None)
                continue
            text = _text(one)
            right, _ = judged(text, tags, _several(references))
            thinking = count(text.partition(tags.close)[0])
            found.append(block.worth(right=right, formed=False, thinking=thinking, budget=budget) - right)
        return found

    return budget_length_reward


def _text(completion: Any) -> str:  # noqa: ANN401 - TRL's: a text, or the turns of a conversation
    return completion if isinstance(completion, str) else "".join(turn["content"] for turn in completion)


def _several(references: str | Sequence[str]) -> Sequence[str]:
    return [references] if isinstance(references, str) else references
