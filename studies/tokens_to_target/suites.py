"""Five generated suites: the playground, and four whose tasks repeat, mislead, starve or depend on each other."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from pathlib import Path

from apportion.tasks.sources.playground import RULES
from apportion.tasks.splits import normalised, position

Pairs = list[tuple[str, str]]
Suite = dict[str, Pairs]

# Every task is validated on as many examples, however small it is: half for the report, half for methods that steer.
VALIDATED, SHARE = 128, 0.3
DIGITS = "0123456789"
LETTERS = "abcdefgh"
# The tasks whose answers the noisy suite makes up; five of twenty-five.
NOISE = ("noise1", "noise2", "noise3", "noise4", "noise5")
# A deal in which every task has as many different inputs as its place asks for.
IMBALANCE = 232
COPIES = tuple(f"copy{i}" for i in range(2, 12))


def playground() -> Suite:
    """The rules and sizes of the library's own playground."""
    return {name: _task(name, rule.size, rule.draw, rule.solve) for name, rule in RULES.items()}


def redundant() -> Suite:
    """The playground and ten more tasks that are copy under other names."""
    return playground() | {name: _task(name, 600, _word(4, 5), str) for name in COPIES}


def noisy() -> Suite:
    """The playground and five tasks whose answers are random: nothing to learn but the answers' shape."""
    shapes: list[Callable[[random.Random], str]] = [
        _word(4, 4),
        _word(4, 4, DIGITS),
        _word(2, 2),
        _word(3, 3, string.ascii_lowercase),
        _word(6, 6, "01"),
    ]
    suite = playground()
    for name, shape in zip(NOISE, shapes, strict=True):
        answers = random.Random(f"answers of {name}")
        suite[name] = _task(name, 1500, _word(4, 5), lambda x, s=shape, r=answers: s(r))
    return suite


def imbalanced() -> Suite:
    """The playground's rules, their sizes spaced evenly in the logarithm from 20,000 down to 20, hard and easy mixed."""
    names = random.Random(IMBALANCE).sample(sorted(RULES), len(RULES))
    suite: Suite = {}
    for rank, name in enumerate(names):
        rule = RULES[name]
        size = round(20 * 1000 ** (1 - rank / (len(names) - 1)))
        suite[name] = _task(name, size, rule.draw, rule.solve)
    return suite


def related() -> Suite:
    """Families whose later members build on the earlier ones, and two pairs that contradict each other.

    The members of a contradicting pair have the same prompts and different answers: what helps one harms the other.
    """

    def shift(by: int) -> Callable[[str], str]:
        turned = LETTERS[by:] + LETTERS[:by]
        return lambda x: x.translate(str.maketrans(LETTERS, turned))

    word = _word(4, 5)
    suite = {
        "rev": _task("rev", 2500, word, lambda x: x[::-1]),
        "revup": _task("revup", 120, word, lambda x: x[::-1].upper()),
        "revdbl": _task("revdbl", 120, word, lambda x: "".join(c + c for c in x[::-1])),
        "revnext": _task("revnext", 120, word, lambda x: shift(1)(x[::-1])),
        "next": _task("next", 1500, word, shift(1)),
        "nextup": _task("nextup", 120, word, lambda x: shift(1)(x).upper()),
        "nextdbl": _task("nextdbl", 120, word, lambda x: "".join(c + c for c in shift(1)(x))),
        "next2": _task("next2", 300, word, shift(2)),
        "sort": _task("sort", 3000, word, lambda x: "".join(sorted(x))),
        "sortup": _task("sortup", 120, word, lambda x: "".join(sorted(x)).upper()),
        "sortrev": _task("sortrev", 120, word, lambda x: "".join(sorted(x))[::-1]),
        "up": _task("up", 6000, word, str.upper),
        "double": _task("double", 800, word, lambda x: "".join(c + c for c in x)),
        "add1": _task("add1", 60, RULES["add1"].draw, RULES["add1"].solve),
        "add2": _task("add2", 2000, RULES["add2"].draw, RULES["add2"].solve),
        "add3": _task("add3", 4000, RULES["add3"].draw, RULES["add3"].solve),
    }
    for name, prompt, size, rule in (
        ("move-left", "move", 3000, lambda x: x[1:] + x[:1]),
        ("move-right", "move", 300, lambda x: x[-1:] + x[:-1]),
        ("turn-up", "turn", 3000, lambda x: x.upper()),
        ("turn-down", "turn", 300, lambda x: x),
    ):
        suite[name] = _task(prompt, size, word, rule, stream=name)
    return suite


SUITES: dict[str, Callable[[], Suite]] = {
    "playground": playground,
    "redundant": redundant,
    "noisy": noisy,
    "imbalanced": imbalanced,
    "related": related,
}


def write(suite: Suite, folder: Path) -> None:
    """Write one JSONL file a task."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in suite.items():
        lines = [json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in pairs]
        (folder / f"{name}.jsonl").write_text("".join(lines))


def _word(low: int, high: int, alphabet: str = LETTERS) -> Callable[[random.Random], str]:
    return lambda rng: "".join(rng.choices(alphabet, k=rng.randint(low, high)))


def _task(
    prompt: str,
    size: int,
    draw: Callable[[random.Random], str],
    solve: Callable[[str], str],
    stream: str | None = None,
) -> Pairs:
    """Return ``size`` training examples with different inputs, and up to ``VALIDATED`` more that the split validates on.

    The split goes by a hash of the prompt, so inputs are drawn until both sides are full; add1 has only a hundred.
    """
    rng = random.Random(f"{stream or prompt} of the study")
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for _ in range(20 * (size + VALIDATED)):
        x = draw(rng)
        validates = position(normalised(f"{prompt} {x}")) < SHARE
        side = sides[validates]
        if x not in side and len(side) < (VALIDATED if validates else size):
            side[x] = solve(x)
    return [(f"{prompt} {x}", answer) for side in sides for x, answer in side.items()]
