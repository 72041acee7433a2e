"""Answers of held-out conversations that are trained on too: context only, so that no loss is measured on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from apportion._errors import ApportionError
from apportion.tasks.example import Example
from apportion.tasks.splits import normalised


def mute(tasks: Sequence[tuple[str, dict[str, list[Example]]]], dirt: Counter[str]) -> None:
    """Mute what validation and test splits share with train splits: an answer and the user's words just before it.

    The split keeps openings apart; later turns ("Thanks!", "You are welcome.") recur under any of them. An example left
    without an answer of its own is dropped. Collections without conversations need nothing of this and are left alone.

    Args:
        tasks: Name and examples by split of each task; validation and test are replaced.
        dirt: Counts "muted" turns and "held" examples, which are dropped.

    Raises:
        ApportionError: A task is left without validation examples.
    """
    if not any(example.messages for _, parts in tasks for examples in parts.values() for example in examples):
        return
    trained = {pair for _, parts in tasks for example in parts["train"] for _, pair in _answers(example)}
    for name, parts in tasks:
        for split in ("validation", "test"):
            left = (_without(example, trained, dirt) for example in parts[split])
            parts[split] = [example for example in left if example is not None]
        if not parts["validation"]:
            raise ApportionError(
                f"Task '{name}' has nothing to validate on: all answers of its validation examples are trained on too, "
                "after the same words of the user's. Validate on a larger share, join it to another task, or leave it out."
            )


def _without(example: Example, trained: set[int], dirt: Counter[str]) -> Example | None:
    answers = list(_answers(example))
    muted = tuple(k for k, pair in answers if pair in trained)
    if not muted:
        return example
    if len(muted) == len(answers):
        dirt["held"] += 1
        return None
    dirt["muted"] += len(muted)
    return replace(example, muted=muted)


def _answers(example: Example) -> Iterator[tuple[int, int]]:
    """Yield the place of each answer, and a hash of the user's words before it and of its own."""
    asked = example.prompt
    if example.messages is None:
        yield 0, hash((normalised(asked), normalised(example.completion)))
        return
    asked = ""
    for k, turn in enumerate(example.messages):
        if turn["role"] == "user":
            asked = normalised(turn["content"])
        elif turn["role"] == "assistant" and turn["content"].strip():
            yield k, hash((asked, normalised(turn["content"])))
