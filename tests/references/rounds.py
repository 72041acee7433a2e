"""The loop of s1, a row at a time: think until the end tag, leave it out, append ``wait``, think on with what is left."""

from __future__ import annotations

from tests.references.forcing import scores_of


def _best(model, ids, ends):
    scores = scores_of(model, ids)
    scores[list(ends)] = float("-inf")
    return int(scores.argmax())


def think(model, prompt, tags, budget, answer, *, ends=(), wait_counts=True):
    """What is written: thinking, the tag, and ``answer`` more tokens.

    ``wait_counts`` says whether ``wait`` is taken off what is left; in s1's own loop it is not. ``least`` holds as
    well.
    """
    close, wait = list(tags.close), list(tags.wait)
    thinking, left, forced = [], budget.most, False
    while True:
        begun = []  # what this round has thought, the tag included
        while begun[-len(close) :] != close and (left is None or len(begun) < left):
            begun.append(_best(model, list(prompt) + thinking + begun, ends))
        if begun[-len(close) :] != close:
            forced = True
            for size in range(len(close) - 1, -1, -1):
                if (thinking + begun)[len(thinking + begun) - size :] == close[:size]:
                    thinking = (thinking + begun)[: len(thinking + begun) - size]
                    break
            break
        begun = begun[: -len(close)]
        thinking += begun
        left = None if left is None else left - len(begun)
        room = left is None or left >= (len(wait) if wait_counts else 1)
        said, at = 0, budget.least
        while at + len(wait) <= len(thinking):
            hit = thinking[at : at + len(wait)] == wait
            said, at = said + hit, at + (len(wait) if hit else 1)
        if not room or not (len(thinking) < budget.least or said < budget.ignore):
            break
        thinking += wait
        left = left - len(wait) if wait_counts and left is not None else left
    written = thinking + close + (list(tags.answer) if forced else [])
    for _ in range(answer):
        written.append(_best(model, list(prompt) + written, ()))
    return written
