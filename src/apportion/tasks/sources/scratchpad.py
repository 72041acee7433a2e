"""Problems with their thinking written out, for trying what a thinking token is worth on a model of minutes."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from apportion._errors import nearest
from apportion.tasks.example import Example, RawTask
from apportion.tasks.findings import counted
from apportion.tasks.sources._source import Reading, Source
from apportion.tasks.sources.chains import KINDS, Kind

_VERSION = 1
# Longer chains make examples that are too long for models of minutes.
_LONGEST = 20


class Scratchpad(Source):
    """Procedurally generated, seeded chains of operations, such as ``7+3*9-4?``, one task a number of operations.

    A completion is the open tag, the thinking, the close tag and the answer: ``<think>0;0;6;</think>6``. The answer of
    digits is modulo ten, from left to right; of permutations of five it is their composition, from left to right. An
    example's reference is the answer alone.

    Args:
        seed: Decides the problems that are drawn, and how each is thought about; each task draws from its own stream.
        problem: ``arithmetic``, digits plus, minus and times; ``permutations``, of five, composed.
        examples: Of each task; none takes more than half of the problems that there are, which a finding says.
        steps: The fewest and the most operations of a problem.
        styles: How thinking is written, drawn for each problem alike, one that is named twice twice as often; left out, in
            all ways that there are. ``terse``: the value after each step; ``verbose``: each step in full; ``spelled``:
            permutations place by place.
        correct: Share of the examples with a slip in one step, which stands corrected behind ``wait``.
        open: The tag that thinking stands behind.
        close: The tag that ends it.
        wait: The word that takes a slip back.
    """

    seed: int = 0
    problem: Literal["arithmetic", "permutations"] = "arithmetic"
    examples: int = Field(2000, ge=20, le=10**7)
    steps: tuple[int, int] = (2, 8)
    styles: tuple[str, ...] | None = None
    correct: float = Field(0.0, ge=0.0, le=1.0)
    open: str = Field("<think>", min_length=1)
    close: str = Field("</think>", min_length=1)
    wait: str = Field("Wait", min_length=1)

    @field_validator("steps")
    @classmethod
    def _ordered(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1] <= _LONGEST:
            raise ValueError(f"must be the fewest and the most steps, of 1 to {_LONGEST}, such as [2, 8]")
        return value

    @field_validator("styles")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is None or "problem" not in info.data:
            return value
        styles = KINDS[info.data["problem"]].styles
        for style in value:
            if style not in styles:
                raise ValueError(f"there is no style '{style}'{nearest(style, styles)}")
        if not value:
            raise ValueError(f"name some of {', '.join(styles)}, or leave it out")
        return value

    def read(self) -> Reading:
        """Return a task a number of steps, the fewest first."""
        fewest, most = self.steps
        width = len(str(most))
        tasks, findings = [], []
        for length in range(fewest, most + 1):
            name = f"steps{length:0{width}}"
            there = KINDS[self.problem].count(length)
            if self.examples > there // 2:
                findings.append(
                    f"Task '{name}' has {there // 2:,} examples, half of the problems of {counted(length, 'step')} that "
                    "there are."
                )
            tasks.append(self._task(name, length, min(self.examples, there // 2)))
        return Reading(tasks, tuple(findings))

    def digest(self) -> str:
        """Return a digest that changes with the rules' version."""
        return hashlib.blake2b(f"scratchpad {_VERSION}".encode(), digest_size=16).hexdigest()

    def _task(self, name: str, length: int, size: int) -> RawTask:
        kind, stream = KINDS[self.problem], f"{self.problem} {name} {self.seed}"
        # Problems have a stream of their own: they are the same ones whatever is thought about them.
        drawing, thinking = random.Random(stream), random.Random(f"{stream} thinking")
        problems: dict[str, None] = {}
        while len(problems) < size:
            problems[kind.draw(drawing, length)] = None
        examples = []
        for number, problem in enumerate(problems):
            thought, answer = self._thought(kind, problem, thinking)
            completion = f"{self.open}{thought}{self.close}{answer}"
            examples.append(Example(problem, completion, f"{name}-{number}", references=(answer,)))
        return RawTask(
            name, "scratchpad", examples, instruction=kind.instruction if self.instruction == "apart" else ""
        )

    def _thought(self, kind: Kind, problem: str, rng: random.Random) -> tuple[str, str]:
        """Return the thinking and the answer."""
        steps = kind.steps(problem)
        write = kind.styles[rng.choice(self.styles or tuple(kind.styles))]
        # Drawn for every example, so that those without a slip are the same whatever the share.
        slips, at = rng.random() < self.correct, rng.randrange(len(steps))
        wrong = kind.slip(rng, steps[at].after)
        written = [write(step) for step in steps]
        if slips:
            written[at] = write(replace(steps[at], after=wrong)) + self.wait + written[at]
        return "".join(written), steps[-1].after
