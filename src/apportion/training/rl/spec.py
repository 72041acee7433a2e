"""What a recipe says of reinforcement: its ``rl`` block, checked without loading torch or TRL."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator, model_validator

from apportion._config import Config
from apportion.runs.reinforce import named
from apportion.thinking.rewards import Rewards


class RlSpec(Config):
    """The recipe's ``rl`` block.

    Attributes:
        type: ``grpo`` (one budget, one summary, the group's mean as baseline) or ``brpo``, thinking cut at every budget.
        start: A finished run whose recipe has a ``thinking`` block.
        budgets: Tokens of thinking, increasing: the last one is where roll-outs end.
        prior: How much each budget counts: ``base`` (the last alone), ``uniform``, ``linear`` (like the budget), or numbers.
        rollouts: Of each prompt, a group.
        summaries: Answers at each budget of each roll-out.
        prompts: Drawn a step.
        baseline: What is taken off a return: ``brpo`` (the trace's own past and the group), ``own`` or ``group`` alone, or
            ``none``.
        rewards: What an answer is worth.
        answer: Longest answer, in tokens.
        temperature: Of roll-outs, and of answers that are judged.
        measured: Budgets that answers are measured at, increasing; left out those that are trained toward, or an eighth, a
            quarter, a half and all of the only one.
    """

    type: Literal["brpo", "grpo"] = "brpo"
    start: str
    budgets: list[int] = Field(min_length=1)
    prior: Literal["base", "uniform", "linear"] | list[float] = "uniform"
    rollouts: int = Field(default=8, ge=2)
    summaries: int = Field(default=4, ge=1)
    prompts: int = Field(default=8, ge=1)
    baseline: Literal["brpo", "own", "group", "none"] = "brpo"
    rewards: Rewards = Rewards()
    answer: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    measured: list[int] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: object) -> object:
        # GRPO is the case of one budget and one summary; what would make it another is refused below.
        if isinstance(values, dict) and values.get("type") == "grpo":
            return {"summaries": 1, "baseline": "group", **values}
        return values

    @field_validator("budgets", "measured")
    @classmethod
    def _increasing(cls, value: list[int] | None) -> list[int] | None:
        if value is None:
            return None
        if value[0] < 1 or any(a >= b for a, b in pairwise(value)):
            raise ValueError("must be whole numbers above zero, each larger than the one before")
        return value

    @model_validator(mode="after")
    def _of_a_kind(self) -> RlSpec:
        if self.type == "grpo" and (len(self.budgets) > 1 or self.summaries > 1 or self.baseline != "group"):
            raise ValueError(
                "'type: grpo' has one budget, one summary and the group's mean as baseline: take 'type: brpo' for more"
            )
        if isinstance(self.prior, list) and (
            len(self.prior) != len(self.budgets) or min(self.prior) < 0 or sum(self.prior) <= 0
        ):
            raise ValueError(f"'prior' needs a number of zero or more for each of the {len(self.budgets)} budgets")
        return self

    @property
    def measures(self) -> list[int]:
        """The budgets that answers are measured at."""
        if self.measured is not None or len(self.budgets) > 1:
            return self.measured or self.budgets
        return sorted({max(self.budgets[0] // part, 1) for part in (8, 4, 2, 1)})

    @property
    def title(self) -> str:
        """What a run of it is called among others."""
        return named(self.model_dump())
