"""Programs over short words, named by their instructions: 60 to train on, 12 new compositions to hold out.

A part either arranges the letters of a word or rewrites each of them; an instruction is the name of a part, or of one part
of each kind in either order: "reverse", "reverse, then upper", "upper, then reverse". As rewriting does not look at places,
both orders are one function, so holding out a composition leaves out its other order too: of the 6 x 6 pairs of parts 24
are trained on, in both orders, and 12 are held out, each in one order. Every part is held out once as the first and once as
the second of a composition, and trained on alone, four times as the first and four times as the second.

Compositions of two arrangements were tried first: a small model learnt those it was trained on and not one new one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

LETTERS = "abcdefgh"
LENGTHS = (4, 5, 6)
SEED = 0
# The library validates on 8 of a task's examples at its default share, so about 150 are trained on.
TRAIN, HELD_OUT = 160, 60

Part = Callable[[str], str]
Program = tuple[str, ...]


def _letters(into: str) -> Part:
    return lambda word: word.translate(str.maketrans(LETTERS, into))


ARRANGE: dict[str, Part] = {
    "reverse": lambda word: word[::-1],
    "rotate": lambda word: word[1:] + word[:1],
    "swap": lambda word: word[-1:] + word[1:-1] + word[:1],
    "double": lambda word: "".join(letter + letter for letter in word),
    "behead": lambda word: word[1:],
    "curtail": lambda word: word[:-1],
}
REWRITE: dict[str, Part] = {
    "upper": str.upper,
    "number": _letters("12345678"),
    "next": _letters(LETTERS[1:] + LETTERS[:1]),
    "back": _letters(LETTERS[-1:] + LETTERS[:-1]),
    "skip": _letters(LETTERS[2:] + LETTERS[:2]),
    "opposite": _letters(LETTERS[::-1]),
}
PARTS = ARRANGE | REWRITE


def programs() -> tuple[list[Program], list[Program]]:
    """Return the programs that are trained on, and the held-out ones; which are which follows from ``SEED``."""
    rng = random.Random(SEED)
    arrange, rewrite = (rng.sample(sorted(parts), len(parts)) for parts in (ARRANGE, REWRITE))
    train: list[Program] = [(name,) for name in PARTS]
    held_out: list[Program] = []
    for row, first in enumerate(arrange):
        for column, second in enumerate(rewrite):
            # Two diagonals of the square: each part stands once on either of them.
            place = (column - row) % len(rewrite)
            if place == 0:
                held_out.append((first, second))
            elif place == len(rewrite) // 2:
                held_out.append((second, first))
            else:
                train += [(first, second), (second, first)]
    return train, held_out


def instruction(program: Program) -> str:
    """Return the program in words."""
    return ", then ".join(program)


def solve(program: Program, word: str) -> str:
    """Return what the program makes of a word."""
    for name in program:
        word = PARTS[name](word)
    return word


def words(seed: str) -> Iterator[str]:
    """Yield words of the inputs' distribution, which may repeat."""
    rng = random.Random(f"{seed} {SEED}")
    while True:
        yield "".join(rng.choices(LETTERS, k=rng.choice(LENGTHS)))


def write(folder: Path) -> None:
    """Write ``train/`` and ``held_out/`` under ``folder``, one JSONL file a program, the same ones each time.

    Rows are ``{"instruction", "input", "output"}``; a file is called by its program's parts, such as
    ``reverse-upper.jsonl``. Inputs differ within a file, and none that is held out stands in a file to train on.
    """
    train, held_out = programs()
    tried = {program: _distinct(instruction(program), HELD_OUT, set()) for program in held_out}
    evaluated = {word for inputs in tried.values() for word in inputs}
    _write(folder / "held_out", tried)
    _write(folder / "train", {program: _distinct(instruction(program), TRAIN, evaluated) for program in train})


def _distinct(seed: str, n: int, without: set[str]) -> list[str]:
    chosen: dict[str, None] = {}
    drawn = words(seed)
    while len(chosen) < n:
        word = next(drawn)
        if word not in without:
            chosen[word] = None
    return list(chosen)


def _write(folder: Path, inputs: dict[Program, list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for program, drawn in inputs.items():
        rows = [{"instruction": instruction(program), "input": word, "output": solve(program, word)} for word in drawn]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{'-'.join(program)}.jsonl").write_text(text, encoding="utf-8")
