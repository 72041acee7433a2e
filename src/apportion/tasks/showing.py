"""Examples as the model sees them: their text after template and truncation, and which of it is supervised."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from apportion.tasks.encoded import IGNORED, EncodedCollection


def shown(encoded: EncodedCollection, tokenizer: Any, count: int) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the first ``count`` train examples of each task, in order.

    Args:
        encoded: The encoded tasks.
        tokenizer: What they were encoded with.
        count: Examples a task.

    Returns:
        Dictionaries of "task", "id" and "segments", a list of [text, whether it is supervised].
    """
    return [
        {"task": task.name, "id": task.train.ids[i], "segments": segments(tokenizer, *task.train.example(i))}
        for task in encoded
        for i in range(min(count, len(task.train)))
    ]


def segments(tokenizer: Any, tokens: np.ndarray, labels: np.ndarray) -> list[list[Any]]:  # noqa: ANN401
    """Return an example's text in stretches, each with whether it is supervised; together they are the decoded text.

    Args:
        tokenizer: What the example was encoded with.
        tokens: (n,) ids.
        labels: (n,) ids, or -100 where nothing is supervised.
    """
    supervised = labels != IGNORED
    cuts = [0, *(np.flatnonzero(np.diff(supervised)) + 1).tolist(), len(tokens)]
    text = _decoded(tokenizer, tokens)
    places = [_agreement(text, _decoded(tokenizer, tokens[:cut])) for cut in cuts[:-1]] + [len(text)]
    parts = [[text[a:b], bool(supervised[cut])] for (a, b), cut in zip(pairwise(places), cuts, strict=False)]
    return [part for part in parts if part[0]]


def _decoded(tokenizer: Any, tokens: np.ndarray) -> str:  # noqa: ANN401
    text: str = tokenizer.decode(tokens.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _agreement(text: str, start: str) -> int:
    """Return how many characters of ``start`` open ``text``: all of them, but for a character cut between two tokens."""
    if text.startswith(start):
        return len(start)
    differ = (at for at, (a, b) in enumerate(zip(text, start, strict=False)) if a != b)
    return next(differ, len(text))
