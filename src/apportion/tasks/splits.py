"""Deterministic splits by a hash of each prompt, or a conversation's first, across the whole collection."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile

from apportion._errors import ApportionError
from apportion.tasks.example import Example
from apportion.tasks.findings import counted

TRAIN, VALIDATION, TEST = 0, 1, 2
# A loss over one or two examples steers nothing: small tasks get up to this many to validate on.
_FEW = 8


def normalised(text: str) -> str:
    """Return ``text`` without the differences that do not make a new prompt: case, white space, Unicode form."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split()).casefold()


def opening(example: Example) -> str:
    """Return the words that an example's side of the split goes by.

    A conversation goes by its first user's turn: every later turn may stand under the same opening in another example, and
    a system prompt does not make it another question. Without one it goes by what stands before its first answer, and
    whatever has nothing before its answer by that.
    """
    if example.messages is None:
        return example.prompt or example.completion
    asked = (turn["content"] for turn in example.messages if turn["role"] == "user")
    before = takewhile(lambda turn: turn["role"] != "assistant" or not turn["content"].strip(), example.messages)
    first = next((text for text in asked if text.strip()), "") or "\n".join(turn["content"] for turn in before)
    return first if first.strip() else example.completion


def hashed(key: str) -> int:
    """Return a normalised key's hash, in [0, 2**64)."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def key_of(example: Example) -> int:
    """Return the hash that the example's side of the split went by; examples of one prompt have one."""
    return hashed(normalised(opening(example))) if example.key is None else example.key


def position(key: str) -> float:
    """Return the key's place in [0, 1), from its hash alone."""
    return hashed(key) / 2**64


def split_sides(tasks: Sequence[tuple[str, list[str]]], validation: float, test: float) -> tuple[dict[str, int], int]:
    """Put every key on one side: train, validation or test.

    A key's side follows from its hash: below ``test`` it is tested on, below ``test + validation`` validated on, else
    trained on. Then each task of n keys is brought to at least one train key and max(1, min(8, n // 10)) validation keys
    (and as many test keys, where ``test`` > 0 and n > 2): its lowest-hashed key that no other task would miss changes
    sides, in every task that has it, until that holds. Only the first train and validation keys must be found.

    Args:
        tasks: Name and normalised keys of each task, in order.
        validation: Share of distinct keys to validate on, in (0, 1).
        test: Share of distinct keys to test on, in [0, 1).

    Returns:
        The side of each key, and how many keys were moved.

    Raises:
        ApportionError: A task with fewer than two distinct keys, or tasks that share so many that no key can move.
    """
    places: dict[str, float] = {}
    homes: defaultdict[str, list[int]] = defaultdict(list)
    distinct: list[list[str]] = []
    for number, (name, keys) in enumerate(tasks):
        unique = list(dict.fromkeys(keys))
        if len(unique) < 2:
            raise ApportionError(
                f"Task '{name}' has {counted(len(keys), 'example')} of one prompt, which cannot be both trained "
                "and validated on: add examples with other prompts, join it to another task, or leave it out."
            )
        distinct.append(unique)
        for key in unique:
            homes[key].append(number)
            if key not in places:
                places[key] = position(key)
    sides = {key: TEST if p < test else VALIDATION if p < test + validation else TRAIN for key, p in places.items()}
    counts = [[0, 0, 0] for _ in tasks]
    for number, unique in enumerate(distinct):
        for key in unique:
            counts[number][sides[key]] += 1
    moved = 0
    for number, unique in enumerate(distinct):
        for wanted in (TRAIN, VALIDATION, TEST):
            if wanted == TEST and (test == 0 or len(unique) < 3):
                continue
            least = 1 if wanted == TRAIN else max(1, min(_FEW, len(unique) // 10))
            while counts[number][wanted] < least:
                spare = _spare(sorted(unique, key=places.__getitem__), wanted, sides, homes, counts)
                if spare is None and counts[number][wanted]:
                    break
                if spare is None:
                    raise ApportionError(
                        f"Task '{tasks[number][0]}' shares its prompts with other tasks so that no split gives each of "
                        "them both train and validation examples: join these tasks or add examples with other prompts."
                    )
                for home in homes[spare]:
                    counts[home][sides[spare]] -= 1
                    counts[home][wanted] += 1
                sides[spare] = wanted
                moved += 1
    return sides, moved


def _spare(
    keys: list[str], wanted: int, sides: dict[str, int], homes: dict[str, list[int]], counts: list[list[int]]
) -> str | None:
    """Return the first key that can change to side ``wanted`` with one like it left in every task that has it.

    The train side gives first; a test key is given even if it is the last one, where nothing else can be.
    """
    for side, least in ((TRAIN, 2), (TEST, 2), (VALIDATION, 2), (TEST, 1)):
        if side == wanted:
            continue
        for key in keys:
            if sides[key] == side and all(counts[home][side] >= least for home in homes[key]):
                return key
    return None
