"""Problems that are worked out step by step: chains of digits modulo ten, or of permutations of five."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

_DIGITS = "12345"
# Multiplying by these loses nothing: they have an inverse modulo ten.
_FACTORS = "379"


@dataclass(frozen=True)
class Step:
    """One operation of a chain: the value ``before`` it, the operation as the problem has it, and the value ``after``."""

    before: str
    operation: str
    after: str


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        width: Characters of a value; an operation has a sign before as many.
        start: Draws the value that a chain begins with.
        operation: Draws an operation.
        apply: The value after an operation.
        slip: Draws a value that is not the one given, as a mistake would be.
        starts: How many values a chain may begin with.
        operations: How many operations there are.
        styles: How a step of thinking may be written, by the style's name.
        instruction: The rule in words.
    """

    width: int
    start: Callable[[random.Random], str]
    operation: Callable[[random.Random], str]
    apply: Callable[[str, str], str]
    slip: Callable[[random.Random, str], str]
    starts: int
    operations: int
    styles: Mapping[str, Callable[[Step], str]]
    instruction: str

    def draw(self, rng: random.Random, length: int) -> str:
        """Return a problem of ``length`` operations, such as ``7+3*9?``."""
        return self.start(rng) + "".join(self.operation(rng) for _ in range(length)) + "?"

    def count(self, length: int) -> int:
        """Return how many problems of ``length`` operations there are."""
        return self.starts * self.operations**length

    def steps(self, problem: str) -> list[Step]:
        """Return the steps of a problem that `draw` drew, from left to right; the last one's ``after`` is the answer."""
        start, rest = problem[: self.width], problem[self.width : -1]
        operations = [rest[at : at + 1 + self.width] for at in range(0, len(rest), 1 + self.width)]
        values = list(accumulate(operations, self.apply, initial=start))
        return [Step(*step) for step in zip(values, operations, values[1:], strict=False)]


def _calculate(value: str, operation: str) -> str:
    sign, number = operation[0], int(operation[1:])
    done = {"+": int(value) + number, "-": int(value) - number, "*": int(value) * number}
    return str(done[sign] % 10)


def _compose(value: str, operation: str) -> str:
    return "".join(operation[int(place)] for place in value)


def _other_digit(rng: random.Random, right: str) -> str:
    return str((int(right) + rng.randint(1, 9)) % 10)


def _swapped(rng: random.Random, right: str) -> str:
    one, other = rng.sample(_DIGITS, 2)
    return right.translate(str.maketrans(one + other, other + one))


def _operation(rng: random.Random) -> str:
    sign = rng.choice("+-*")
    return sign + (rng.choice(_FACTORS) if sign == "*" else str(rng.randint(1, 9)))


def _permutation(rng: random.Random) -> str:
    return "".join(rng.sample(_DIGITS, len(_DIGITS)))


def _terse(step: Step) -> str:
    return f"{step.after};"


def _verbose(step: Step) -> str:
    return f"{step.before}{step.operation}={step.after};"


def _spelled(step: Step) -> str:
    """Return where each place goes, one by one, and then the whole."""
    ways = (f"{at}>{by}>{to}," for at, by, to in zip(_DIGITS, step.before, step.after, strict=True))
    return "".join(ways) + f"{step.after};"


KINDS: dict[str, Kind] = {
    "arithmetic": Kind(
        width=1,
        start=lambda rng: str(rng.randint(0, 9)),
        operation=_operation,
        apply=_calculate,
        slip=_other_digit,
        starts=10,
        operations=9 + 9 + len(_FACTORS),
        styles={"terse": _terse, "verbose": _verbose},
        instruction="work out the chain from left to right, and give the last digit",
    ),
    "permutations": Kind(
        width=len(_DIGITS),
        start=_permutation,
        operation=lambda rng: f"*{_permutation(rng)}",
        apply=_compose,
        slip=_swapped,
        starts=120,
        operations=120,
        styles={"terse": _terse, "verbose": _verbose, "spelled": _spelled},
        instruction="compose the permutations from left to right",
    ),
}
