"""Thinking that is cut off in training: the model learns to answer from what it has thought so far."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from apportion._errors import ApportionError
from apportion.tasks.encoded import IGNORED, EncodedCollection, EncodedSplit
from apportion.tasks.findings import counted


def cut_thinking(
    tasks: EncodedCollection, opening: Sequence[int], closing: Sequence[int], share: float, seed: int
) -> EncodedCollection:
    """Return the tasks with the thinking of a share of their train examples cut at a random place.

    What is thought behind that place is left out. The close tag stands there as context: the model did not end by itself,
    and is not taught to end there. What comes behind it is supervised as before. Validation and test splits stay whole.

    Of an example with several thoughts the last one is cut. A thought is between tags that both stand in the example, and
    its close tag is supervised; examples without one, and those that think nothing, are left as they are. Whether an
    example is cut, and where, follows from ``seed`` and its id.

    Args:
        tasks: The tasks, as they were encoded.
        opening: The open tag as tokens.
        closing: The close tag as tokens.
        share: Of the train examples that have a thought, in [0, 1].
        seed: The run's.

    Returns:
        The tasks with the same fingerprint, and with a finding of how many were cut and how many have no thought.

    Raises:
        ApportionError: No train example has a thought.
    """
    thoughtless = cut = total = 0
    parts = []
    for task in tasks:
        examples = [task.train.example(i) for i in range(len(task.train))]
        thoughts = [_thought(tokens, labels, opening, closing) for tokens, labels in examples]
        for i, (name, thought) in enumerate(zip(task.train.ids, thoughts, strict=True)):
            # Both are drawn of every example, so that a larger share cuts the same ones at the same places, and more.
            chance, place = _draws(seed, name)
            if thought is not None and chance < share:
                examples[i] = _cut(*examples[i], thought, place, len(closing))
                cut += 1
        total += len(thoughts)
        thoughtless += thoughts.count(None)
        parts.append(replace(task, train=EncodedSplit.from_arrays(task.train.ids, examples, _keys(task.train))))
    if thoughtless == total:
        raise ApportionError(
            "No train example has thinking between the tags of 'thinking.open' and 'thinking.close' as the tokenizer writes "
            "them: give the tags that stand in the data, or leave out 'thinking.cuts'."
        )
    findings = [f"{counted(cut, 'train example')} of {total:,} with their thinking cut at a random place."]
    if thoughtless:
        findings.append(
            f"{counted(thoughtless, 'train example')} without supervised thinking between tags: left whole."
        )
    return EncodedCollection(parts, [*tasks.findings, *findings], tasks.fingerprint, tasks.targets)


def _keys(split: EncodedSplit) -> list[int]:
    keys: list[int] = split.keys.tolist()
    return keys


def _draws(seed: int, name: str) -> tuple[float, float]:
    """Return two numbers in [0, 1) that follow from the seed and an example's id."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=14).digest()
    # Seven bytes each, of which a float holds the 53 bits that count.
    one, other = (int.from_bytes(half, "big") >> 3 for half in (digest[:7], digest[7:]))
    return one / 2**53, other / 2**53


def _places(tokens: np.ndarray, tag: Sequence[int]) -> list[int]:
    """Return where ``tag`` begins in ``tokens``, ascending."""
    starts = np.flatnonzero(tokens == tag[0]).tolist()
    return [at for at in starts if tokens[at : at + len(tag)].tolist() == list(tag)]


def _thought(
    tokens: np.ndarray, labels: np.ndarray, opening: Sequence[int], closing: Sequence[int]
) -> tuple[int, int] | None:
    """Return where the last thought begins and ends, both tags excluded; None where there is none or it is empty."""
    closes = _places(tokens, closing)
    ends = [at for at in closes if (labels[at : at + len(closing)] != IGNORED).all()]
    if not ends:
        return None
    end = ends[-1]
    before = max((at + len(closing) for at in closes if at < end), default=0)
    begin = next((at + len(opening) for at in _places(tokens, opening) if at >= before), end)
    return (begin, end) if begin < end else None


def _cut(
    tokens: np.ndarray, labels: np.ndarray, thought: tuple[int, int], place: float, tag: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the example with its thought cut to ``place``, in [0, 1) of its length, and its close tag unlabelled."""
    begin, end = thought
    at = begin + int(place * (end - begin))
    labels = labels.copy()
    labels[end : end + tag] = IGNORED
    return np.concatenate([tokens[:at], tokens[end:]]), np.concatenate([labels[:at], labels[end:]])
