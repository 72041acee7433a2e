"""Suite H, written once and run once, after all defaults are fixed: nothing may be tuned on it.

Quality, prerequisites and unequal lengths together: the target is the last of a chain; sources mix skills, some look right
and answer wrong, and answers are short or long.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from studies.targets.skills import Skill, on_words, rule, shift, source
from studies.targets.suites import SIZE, Suite, given

WRONG = 0.9


def spoilt(skill: Skill, stream: str) -> Skill:
    """Return the skill with nine answers in ten those to another input."""
    rng = random.Random(f"wrong answers of {stream}")

    def solve(x: str) -> str:
        return skill.solve(skill.draw(rng) if rng.random() < WRONG else x)

    return Skill(skill.prompt, skill.draw, solve)


def hidden() -> Suite:
    """Twelve sources: three of a chain, two spoilt, two that are right and wordy, five beside the point."""
    last = on_words("sd", lambda x: doubled("".join(sorted(x))))
    first, second = on_words("s", lambda x: "".join(sorted(x))), on_words("d", doubled)
    wordy = on_words("tell sd", lambda x: f"sorted it is {''.join(sorted(x))}, so {doubled(''.join(sorted(x)))}")
    long = on_words("tell n", lambda x: f"the word {x} becomes {shift(x)}")
    blends: dict[str, dict[Skill, float]] = {
        "h01": {last: 0.5, rule("upper"): 0.5},
        "h02": {first: 0.8, rule("count"): 0.2},
        "h03": {second: 0.8, rule("largest"): 0.2},
        "h04": {spoilt(last, "h04"): 0.8, rule("upper"): 0.2},
        "h05": {spoilt(first, "h05"): 0.8, rule("last"): 0.2},
        "h06": {wordy: 0.6, long: 0.4},
        "h07": {wordy: 0.2, long: 0.8},
        "h08": {rule("next"): 0.5, rule("swap"): 0.5},
        "h09": {rule("add2"): 1.0},
        "h10": {rule("reverse"): 0.5, long: 0.5},
        "h11": {rule("count"): 0.5, rule("largest"): 0.5},
        "h12": {rule("back"): 0.7, rule("first"): 0.3},
    }
    sizes = {"h01": 300}
    sources = {name: source(name, blend, sizes.get(name, SIZE)) for name, blend in blends.items()}
    best = {"h01": 0.4, "h02": 0.3, "h03": 0.3}
    return Suite(sources, *given({"last": last}), best, bad=("h04", "h05"))


def doubled(x: str) -> str:
    """Return each letter twice."""
    return "".join(c + c for c in x)


HIDDEN: dict[str, Callable[[], Suite]] = {"hidden": hidden}
