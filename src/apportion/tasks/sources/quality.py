"""The playground's suite of sources of mixed quality, and the clean skills that are targets to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from apportion.tasks.example import Example

# The skills that sources mix, of the playground's own rules.
SKILLS = ("reverse", "sort", "upper", "next", "double", "swap", "count", "largest", "add2", "last")
SIZE = 1500
_MAIN, _SIDE = 0.7, 0.15
_FALSE, _BROAD = 0.9, 0.3

Ask = Callable[[random.Random], str]


@dataclass(frozen=True)
class Blend:
    """A source: the share of each skill among its examples, and the share of them whose answers are wrong."""

    skills: Mapping[str, float]
    wrong: float


def blends(seed: int) -> dict[str, Blend]:
    """Return the twenty sources, whose names tell nothing: their order is drawn by ``seed``.

    Ten are of one main skill (70 %) and two others; five look like these and have nine answers in ten wrong; five are of all
    skills alike with three answers in ten wrong.
    """
    rng = random.Random(f"blends {seed}")
    found = [Blend(_focused(skill, rng), 0.0) for skill in SKILLS]
    found += [Blend(_focused(skill, rng), _FALSE) for skill in rng.sample(SKILLS, 5)]
    found += [Blend(dict.fromkeys(SKILLS, 1 / len(SKILLS)), _BROAD)] * 5
    rng.shuffle(found)
    return {f"source{i:02d}": blend for i, blend in enumerate(found, 1)}


def _focused(skill: str, rng: random.Random) -> dict[str, float]:
    sides = rng.sample([other for other in SKILLS if other != skill], 2)
    return {skill: _MAIN, **dict.fromkeys(sides, _SIDE)}


def blended(
    name: str, blend: Blend, size: int, seed: int, ask: Mapping[str, Ask], solve: Callable[[str, str], str]
) -> list[Example]:
    """Return a source's examples; a wrong answer is the right one of another input of the same skill.

    Args:
        name: The source's, which its random numbers follow from.
        blend: What it is made of.
        size: Examples.
        seed: Of the suite.
        ask: Draws an input, by skill.
        solve: Returns the right answer of a skill to an input.
    """
    rng = random.Random(f"{name} {seed}")
    skills, shares = list(blend.skills), list(blend.skills.values())
    found: dict[str, str] = {}
    while len(found) < size:
        skill = rng.choices(skills, shares)[0]
        x = ask[skill](rng)
        told = ask[skill](rng) if rng.random() < blend.wrong else x
        found.setdefault(f"{skill} {x}", solve(skill, told))
    return [
        Example(prompt, answer, f"{name}-{i}", references=(answer,)) for i, (prompt, answer) in enumerate(found.items())
    ]
