"""Twenty small procedural tasks of very different size, difficulty and redundancy, for trying mixtures in minutes."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from apportion._errors import ApportionError, nearest
from apportion.tasks.example import Example, RawTask
from apportion.tasks.sources._source import Source

_LETTERS = "abcdefgh"
_VERSION = 1


@dataclass(frozen=True)
class Rule:
    """A task's rule: how many examples it has, how an input is drawn, and what the answer is."""

    size: int
    draw: Callable[[random.Random], str]
    solve: Callable[[str], str]


def _word(low: int, high: int, alphabet: str = _LETTERS) -> Callable[[random.Random], str]:
    return lambda rng: "".join(rng.choices(alphabet, k=rng.randint(low, high)))


def _sum(digits: int) -> Callable[[random.Random], str]:
    low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
    return lambda rng: f"{rng.randint(low, high)}+{rng.randint(low, high)}"


def _product(rng: random.Random) -> str:
    return f"{rng.randint(10, 99)}*{rng.randint(10, 99)}"


def _find_letter(rng: random.Random) -> str:
    return f"{rng.choice(_LETTERS[:3])} {_word(5, 7, _LETTERS[:3])(rng)}"


def _shift(by: int) -> Callable[[str], str]:
    turned = _LETTERS[by:] + _LETTERS[:by]
    return lambda x: x.translate(str.maketrans(_LETTERS, turned))


def _add(x: str) -> str:
    left, right = x.split("+")
    return str(int(left) + int(right))


def _multiply(x: str) -> str:
    left, right = x.split("*")
    return str(int(left) * int(right) % 97)


def _count(x: str) -> str:
    letter, text = x.split(" ")
    return str(text.count(letter))


def _reverse(x: str) -> str:
    return x[::-1]


# Related on purpose: echo is copy and flip is reverse under another name; upflip composes upper and reverse; next and
# back are inverse shifts; add1..add3 share their digits' rule. greet is all redundancy; parity and modmul are noise to a
# small model. Sizes are unrelated to difficulty, so that neither equal nor proportional shares are right.
RULES: dict[str, Rule] = {
    "copy": Rule(6000, _word(4, 5), str),
    "echo": Rule(150, _word(4, 5), str),
    "reverse": Rule(2000, _word(4, 5), _reverse),
    "flip": Rule(100, _word(4, 5), _reverse),
    "upper": Rule(1500, _word(4, 5), str.upper),
    "upflip": Rule(120, _word(4, 5), lambda x: x[::-1].upper()),
    "sort": Rule(2500, _word(4, 5), lambda x: "".join(sorted(x))),
    "first": Rule(300, _word(4, 5), lambda x: x[0]),
    "last": Rule(250, _word(4, 5), lambda x: x[-1]),
    "next": Rule(1000, _word(4, 5), _shift(1)),
    "back": Rule(200, _word(4, 5), _shift(-1)),
    "double": Rule(800, _word(3, 4), lambda x: "".join(c + c for c in x)),
    "swap": Rule(600, _word(4, 4), lambda x: x[2:] + x[:2]),
    "count": Rule(500, _find_letter, _count),
    "largest": Rule(400, _word(4, 4, string.digits), max),
    "greet": Rule(3000, _word(4, 5), lambda x: "hello"),
    "add1": Rule(60, _sum(1), _add),
    "add2": Rule(2000, _sum(2), _add),
    "add3": Rule(4000, _sum(3), _add),
    "modmul": Rule(3000, _product, _multiply),
}


class Playground(Source):
    """Procedurally generated, seeded tasks; a prompt is the task's name and an input, such as ``reverse abcd``.

    Args:
        seed: Decides the inputs that are drawn; each task draws from its own stream.
        scale: Multiplies every task's size; no task falls below 20 examples.
    """

    seed: int = 0
    scale: float = Field(1.0, gt=0.0, le=1.0)

    def read(self) -> list[RawTask]:
        """Return the twenty tasks."""
        return [self._task(name, rule) for name, rule in RULES.items()]

    def digest(self) -> str:
        """Return a digest that changes with the rules' version."""
        return hashlib.blake2b(f"playground {_VERSION}".encode(), digest_size=16).hexdigest()

    def _task(self, name: str, rule: Rule) -> RawTask:
        # A string seed is hashed the same way by every Python; a tuple's hash is not.
        rng = random.Random(f"{name} {self.seed}")
        size = max(20, round(rule.size * self.scale))
        inputs: dict[str, None] = {}
        while len(inputs) < size:
            inputs[rule.draw(rng)] = None
        examples = [
            Example(f"{name} {x}", rule.solve(x), f"{name}-{i}", references=(rule.solve(x),))
            for i, x in enumerate(inputs)
        ]
        return RawTask(name, "playground", examples)


def solve(task: str, prompt: str) -> str:
    """Return the right completion of ``prompt`` by the task's rule.

    Raises:
        ApportionError: No such task, or a prompt of another task.
    """
    if task not in RULES:
        raise ApportionError(f"Unknown playground task '{task}'{nearest(task, RULES)}.")
    name, _, x = prompt.strip().partition(" ")
    if name != task:
        raise ApportionError(f"The prompt {prompt!r} is not of playground task '{task}'.")
    return RULES[task].solve(x)


def exact_match(task: str, prompt: str, answer: str) -> bool:
    """Say whether ``answer``, white space at its ends aside, is the right completion of a playground prompt."""
    return answer.strip() == solve(task, prompt)
