"""Generated suites: sources to train on, targets to be good at, and what is known of them by construction."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from studies.targets.skills import LETTERS, Pairs, Skill, goal, on_words, rule, shift, source, word

# Of each target: what methods may have, half to steer by and half to measure on as they go, and what only the study sees.
GIVEN, UNSEEN = 512, 1000
# Examples of a source; the fewest inputs that a skill has are 2,867.
SIZE = 2500


@dataclass(frozen=True)
class Suite:
    """Sources, targets and what is known by construction.

    Attributes:
        sources: Examples by source.
        targets: Examples by target that methods may have.
        unseen: Examples by target that the study measures on when a run has ended.
        best: The best mixture by construction, by source; sources that are not named get nothing.
        bad: Sources that contradict a target or are spoilt.
        known: Whether ``best`` is the optimum in the limit, and not merely the best guess.
        budget: Supervised tokens of a run.
    """

    sources: Mapping[str, Pairs]
    targets: Mapping[str, Pairs]
    unseen: Mapping[str, Pairs]
    best: Mapping[str, float]
    bad: tuple[str, ...] = ()
    known: bool = False
    budget: str = "40k"


def prerequisites() -> Suite:
    """A: the target is the deepest of a chain of skills and has few examples; seven sources are beside the point.

    A prompt's letters are what is done to the word, in their order: r turns it round, n takes each next letter, u writes
    it in capitals.
    """
    chain = {
        "turn": (on_words("r", lambda x: x[::-1]), SIZE),
        "next": (on_words("n", shift), SIZE),
        "turn-next": (on_words("rn", lambda x: shift(x[::-1])), 1000),
        "turn-next-capitals": (deepest := on_words("rnu", lambda x: shift(x[::-1]).upper()), 150),
    }
    others = ("sort", "swap", "count", "largest", "add2", "back", "double")
    sources = {name: source(name, skill, size) for name, (skill, size) in chain.items()}
    sources |= {name: source(name, rule(name), SIZE) for name in others}
    best = {"turn": 0.15, "next": 0.15, "turn-next": 0.35, "turn-next-capitals": 0.35}
    return Suite(sources, *given({"deepest": deepest}), best)


# The target's languages and their weights; there are ten.
LANGUAGES, Q = 10, {"language1": 0.5, "language2": 0.3, "language3": 0.2}


def optimum() -> Suite:
    """B: sources are Markov languages, the target a mixture of three of them: the optimum is their weights in it.

    Prompts are five letters that say nothing, so that all there is to learn is how texts are distributed.
    """
    languages = {f"language{i}": Skill("", word(5, 5), language(i)) for i in range(1, LANGUAGES + 1)}
    sources = {name: source(name, skill, SIZE) for name, skill in languages.items()}
    rng = random.Random("the mixture of languages")

    def mixed(x: str) -> str:
        return languages[rng.choices(list(Q), list(Q.values()))[0]].solve(x)

    return Suite(sources, *given({"mixture": Skill("", word(5, 5), mixed)}), Q, known=True)


def language(number: int) -> Callable[[str], str]:
    """Return what writes six letters of a Markov language, whatever it is asked."""
    rng = random.Random(f"language {number}")
    # Few letters are likely after each, and other ones in every language.
    rows = {letter: [rng.random() ** 6 + 0.005 for _ in LETTERS] for letter in ("", *LETTERS)}
    texts = random.Random(f"texts of language {number}")

    def write(_: str) -> str:
        text = ""
        while len(text) < 6:
            text += texts.choices(LETTERS, rows[text[-1:]])[0]
        return text

    return write


def contradiction() -> Suite:
    """C: four sources ask what the target asks and answer otherwise; of two others 60 % are right."""
    turned = on_words("move", lambda x: x[::-1])
    wrong = {
        "wrong-right": lambda x: x[-1:] + x[:-1],
        "wrong-same": lambda x: x,
        "wrong-left": lambda x: x[1:] + x[:1],
        "wrong-next": shift,
    }
    sides = {"right1": "double", "right2": "largest"}
    sources = {name: source(name, {turned: 0.6, rule(side): 0.4}, SIZE) for name, side in sides.items()}
    sources |= {name: source(name, on_words("move", solve), SIZE) for name, solve in wrong.items()}
    sources |= {name: source(name, rule(name), SIZE) for name in ("upper", "sort", "count", "add2")}
    return Suite(sources, *given({"move": turned}), {"right1": 0.5, "right2": 0.5}, bad=tuple(wrong))


def lengths() -> Suite:
    """D: answers of 5 to 20 letters; what the target asks, one source answers plainly and one at length.

    The budget is in tokens, so what matters is the gain per token and not per draw. Half of each of these two is
    beside the point, and as long as the rest of it.
    """
    plain, wordy = on_words("turn", lambda x: x[::-1]), on_words("tell turn", lambda x: f"turned round it is {x[::-1]}")
    beside, long = rule("upper"), on_words("tell upper", lambda x: f"in capitals it is {x.upper()}")
    sources = {
        "plain": source("plain", {plain: 0.5, beside: 0.5}, SIZE),
        "wordy": source("wordy", {wordy: 0.5, long: 0.5}, SIZE),
        **{name: source(name, rule(name), SIZE) for name in ("next", "largest", "swap")},
        "tell-sort": source("tell-sort", on_words("tell sort", lambda x: f"in order it is {''.join(sorted(x))}"), SIZE),
        "tell-next": source("tell-next", on_words("tell next", lambda x: f"the next ones are {shift(x)}"), SIZE),
        "thrice": source("thrice", on_words("thrice", lambda x: "".join(3 * c for c in x)), SIZE),
        "spell": source("spell", on_words("spell", lambda x: ", ".join(x.upper())), SIZE),
        "tell-add2": source("tell-add2", Skill("tell add2", rule("add2").draw, sum_in_words), SIZE),
    }
    return Suite(sources, *given({"turn": plain}), {"plain": 1.0})


def sum_in_words(x: str) -> str:
    """Return a sum and its result."""
    return f"{x} makes {rule('add2').solve(x)}"


SCARCE = (20, 100, 500)


def scarcity(size: int) -> Suite:
    """F: the target is a source of ``size`` examples and has as many; another source is the same skill by another name."""
    scarce = on_words("flip", lambda x: x[::-1])
    sources = {"flip": source("flip", scarce, size), "reverse": source("reverse", rule("reverse"), 4000)}
    others = ("sort", "upper", "next", "double", "swap", "count", "largest", "add2")
    sources |= {name: source(name, rule(name), SIZE) for name in others}
    best = {
        # Drawn often, twenty examples are learnt by heart.
        20: {"flip": 0.05, "reverse": 0.45, **dict.fromkeys(others, 0.5 / len(others))},
        100: {"flip": 0.25, "reverse": 0.75},
        500: {"flip": 0.5, "reverse": 0.5},
    }[size]
    return Suite(sources, *given({"goal": scarce}, size), best)


def given(targets: Mapping[str, Skill], size: int = GIVEN) -> tuple[dict[str, Pairs], dict[str, Pairs]]:
    """Return the ``size`` examples of each target that methods may have, and those that only the study sees."""
    parts = {name: goal(skill, (size, UNSEEN)) for name, skill in targets.items()}
    return {name: have for name, (have, _) in parts.items()}, {name: unseen for name, (_, unseen) in parts.items()}


GENERATED: dict[str, Callable[[], Suite]] = {
    "prerequisites": prerequisites,
    "optimum": optimum,
    "contradiction": contradiction,
    "lengths": lengths,
    **{f"scarcity-{size}": partial(scarcity, size) for size in SCARCE},
}


def write(suite: Suite, folder: Path) -> None:
    """Write ``sources``, ``targets`` and ``unseen``, one JSONL file each, and ``known.json``; all of it or nothing."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for part in ("sources", "targets", "unseen"):
        (new / part).mkdir(parents=True)
        for name, pairs in getattr(suite, part).items():
            lines = [json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in pairs]
            (new / part / f"{name}.jsonl").write_text("".join(lines))
    known = {"best": dict(suite.best), "bad": list(suite.bad), "known": suite.known, "budget": suite.budget}
    (new / "known.json").write_text(json.dumps(known, indent=1) + "\n")
    new.rename(folder)
