"""Skills that generated sources are made of, and how a source mixes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apportion.tasks.sources.playground import RULES
from apportion.tasks.splits import normalised, position

Pairs = list[tuple[str, str]]
LETTERS = "abcdefgh"
# Share of prompts that is kept for targets, by a hash of another text than the one that the library splits by: targets are
# split too, where they may be trained on.
KEPT = 0.3
TRIES = 100


@dataclass(frozen=True)
class Skill:
    """What is asked, ``prompt input``, and what the right answer is."""

    prompt: str
    draw: Callable[[random.Random], str]
    solve: Callable[[str], str]


def word(low: int, high: int, alphabet: str = LETTERS) -> Callable[[random.Random], str]:
    """Return what draws words of ``low`` to ``high`` letters."""
    return lambda rng: "".join(rng.choices(alphabet, k=rng.randint(low, high)))


def shift(x: str) -> str:
    """Return the word with each letter replaced by the next one."""
    return x.translate(str.maketrans(LETTERS, LETTERS[1:] + LETTERS[:1]))


def rule(name: str) -> Skill:
    """Return a skill of the library's playground."""
    return Skill(name, RULES[name].draw, RULES[name].solve)


def on_words(prompt: str, solve: Callable[[str], str]) -> Skill:
    """Return a skill on words of four and five letters."""
    return Skill(prompt, word(4, 5), solve)


def of_targets(prompt: str) -> bool:
    """Return whether a prompt is kept for targets, whichever skill's it is."""
    return position(f"kept for targets: {normalised(prompt)}") < KEPT


def source(name: str, blend: Mapping[Skill, float] | Skill, size: int) -> Pairs:
    """Return ``size`` examples with different prompts, of one skill or of several by their shares."""
    shares = blend if isinstance(blend, Mapping) else {blend: 1.0}
    rng = random.Random(f"{name}, a source")
    found: dict[str, str] = {}
    for _ in range(TRIES * size):
        skill = rng.choices(list(shares), list(shares.values()))[0]
        x = skill.draw(rng)
        prompt = f"{skill.prompt} {x}"
        if not of_targets(prompt):
            found.setdefault(prompt, skill.solve(x))
        if len(found) == size:
            return list(found.items())
    raise ValueError(f"Source '{name}' has fewer than {size} different prompts.")


def goal(skill: Skill, sizes: Sequence[int]) -> list[Pairs]:
    """Return examples of a skill whose prompts stand in no source, as lists of these sizes that share no prompt."""
    rng = random.Random(f"{skill.prompt}, a target")
    found: dict[str, str] = {}
    while len(found) < sum(sizes):
        x = skill.draw(rng)
        prompt = f"{skill.prompt} {x}"
        if of_targets(prompt):
            found[prompt] = skill.solve(x)
    rows = list(found.items())
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [rows[start : start + size] for start, size in zip(starts, sizes, strict=True)]
