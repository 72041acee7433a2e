"""Twenty small procedural tasks of very different size, difficulty and redundancy, for trying mixtures in minutes."""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from apportion._errors import ApportionError, nearest
from apportion.tasks.example import Example, RawTask
from apportion.tasks.sources._source import Reading, Source
from apportion.tasks.sources.quality import SIZE, SKILLS, Blend, blended, blends

_LETTERS = "abcdefgh"
_VERSION = 1


@dataclass(frozen=True)
class Rule:
    """A task's rule: how many examples it has, how an input is drawn, what the answer is, and the rule in words.

    ``inputs`` is the pattern of an input.
    """

    size: int
    draw: Callable[[random.Random], str]
    solve: Callable[[str], str]
    instruction: str
    inputs: str = f"[{_LETTERS}]+"


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
    "copy": Rule(6000, _word(4, 5), str, "copy the word"),
    "echo": Rule(150, _word(4, 5), str, "say the word again"),
    "reverse": Rule(2000, _word(4, 5), _reverse, "reverse the word"),
    "flip": Rule(100, _word(4, 5), _reverse, "flip the word back to front"),
    "upper": Rule(1500, _word(4, 5), str.upper, "write the word in upper case"),
    "upflip": Rule(120, _word(4, 5), lambda x: x[::-1].upper(), "reverse the word and write it in upper case"),
    "sort": Rule(2500, _word(4, 5), lambda x: "".join(sorted(x)), "sort the letters of the word"),
    "first": Rule(300, _word(4, 5), lambda x: x[0], "give the first letter of the word"),
    "last": Rule(250, _word(4, 5), lambda x: x[-1], "give the last letter of the word"),
    "next": Rule(1000, _word(4, 5), _shift(1), "replace each letter by the next one"),
    "back": Rule(200, _word(4, 5), _shift(-1), "replace each letter by the one before it"),
    "double": Rule(800, _word(3, 4), lambda x: "".join(c + c for c in x), "write each letter of the word twice"),
    "swap": Rule(600, _word(4, 4), lambda x: x[2:] + x[:2], "swap the two halves of the word"),
    "count": Rule(500, _find_letter, _count, "count how often the letter stands in the word after it", r"[a-h] [a-h]+"),
    "largest": Rule(400, _word(4, 4, string.digits), max, "give the largest digit", r"\d+"),
    "greet": Rule(3000, _word(4, 5), lambda x: "hello", "say hello to the word"),
    "add1": Rule(60, _sum(1), _add, "add the two digits", r"\d+\+\d+"),
    "add2": Rule(2000, _sum(2), _add, "add the two numbers of two digits", r"\d+\+\d+"),
    "add3": Rule(4000, _sum(3), _add, "add the two numbers of three digits", r"\d+\+\d+"),
    "modmul": Rule(3000, _product, _multiply, "multiply the two numbers and give the remainder by 97", r"\d+\*\d+"),
}


class Playground(Source):
    """Procedurally generated, seeded tasks; a prompt is a task's name and an input, such as ``reverse abcd``.

    With ``instruction: apart`` it is the bare input, ``abcd``, and the task's instruction a sentence such as ``reverse the
    word``; the inputs that tasks share are then one prompt, on one side of the split in all of them.

    Args:
        seed: Decides the inputs that are drawn; each task draws from its own stream.
        scale: Multiplies every task's size; no task falls below 20 examples.
        suite: ``tasks``, the twenty tasks; ``quality``, twenty nameless sources that mix ten of these, some with wrong
            answers (`blends`); ``skills``, the ten by themselves with inputs of their own, which are targets to these.
    """

    seed: int = 0
    scale: float = Field(1.0, gt=0.0, le=1.0)
    # Told by `digest`, so that the fingerprint of the twenty tasks is what it was before there were suites.
    suite: Literal["tasks", "quality", "skills"] = Field("tasks", exclude=True)

    @model_validator(mode="after")
    def _of_one_rule(self) -> Playground:
        if self.suite == "quality" and self.instruction == "apart":
            raise ApportionError("A source of 'suite: quality' has no one instruction that could stand apart.")
        return self

    def read(self) -> Reading:
        """Return the tasks of the suite."""
        if self.suite == "quality":
            return Reading([self._source(name, blend) for name, blend in blends(self.seed).items()])
        if self.suite == "skills":
            return Reading([self._task(name, RULES[name], SIZE, " as a target") for name in SKILLS])
        return Reading([self._task(name, rule, rule.size) for name, rule in RULES.items()])

    def digest(self) -> str:
        """Return a digest that changes with the rules' version and the suite."""
        suite = "" if self.suite == "tasks" else f" {self.suite}"
        return hashlib.blake2b(f"playground {_VERSION}{suite}".encode(), digest_size=16).hexdigest()

    def _task(self, name: str, rule: Rule, size: int, stream: str = "") -> RawTask:
        # A string seed is hashed the same way by every Python; a tuple's hash is not.
        rng = random.Random(f"{name} {self.seed}{stream}")
        inputs: dict[str, None] = {}
        while len(inputs) < self._scaled(size):
            inputs[rule.draw(rng)] = None
        apart = self.instruction == "apart"
        examples = [
            Example(x if apart else f"{name} {x}", rule.solve(x), f"{name}-{i}", references=(rule.solve(x),))
            for i, x in enumerate(inputs)
        ]
        return RawTask(name, "playground", examples, instruction=rule.instruction if apart else "")

    def _source(self, name: str, blend: Blend) -> RawTask:
        ask = {skill: RULES[skill].draw for skill in SKILLS}
        examples = blended(name, blend, self._scaled(SIZE), self.seed, ask, lambda skill, x: RULES[skill].solve(x))
        return RawTask(name, "playground", examples)

    def _scaled(self, size: int) -> int:
        return max(20, round(size * self.scale))


def solve(task: str, prompt: str) -> str:
    """Return the right completion of ``prompt``, the task's name and an input or the input alone, by the task's rule.

    Raises:
        ApportionError: No such task, or a prompt of another task.
    """
    if task not in RULES:
        raise ApportionError(f"Unknown playground task '{task}'{nearest(task, RULES)}.")
    rule, x = RULES[task], prompt.strip()
    if x.startswith(f"{task} "):
        x = x.removeprefix(f"{task} ")
    elif not re.fullmatch(rule.inputs, x):
        raise ApportionError(f"The prompt {prompt!r} is not of playground task '{task}'.")
    return rule.solve(x)


def exact_match(task: str, prompt: str, answer: str) -> bool:
    """Say whether ``answer``, white space at its ends aside, is the right completion of a playground prompt."""
    return answer.strip() == solve(task, prompt)
