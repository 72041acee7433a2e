"""How an example that is too long is shortened."""

from __future__ import annotations

import numpy as np


def shorten(prompt: np.ndarray, rest: np.ndarray, max_length: int) -> tuple[np.ndarray, bool, bool]:
    """Fit a prompt and what follows it into ``max_length`` tokens.

    The prompt is shortened first, by cutting out its middle: the instruction at its head and the question (or the
    template's last marker) at its tail stay. It keeps at least an eighth of ``max_length``, or all of itself if it is
    shorter; only where the rest does not fit beside that is the rest cut, at its end.

    Args:
        prompt: (p,) tokens before the first supervised one.
        rest: (r,) tokens from the first supervised one on.
        max_length: Longest result, at least 2.

    Returns:
        The (at most max_length,) tokens, whether the prompt was cut, and whether the rest was.
    """
    if len(prompt) + len(rest) <= max_length:
        return np.concatenate([prompt, rest]), False, False
    least = min(len(prompt), max(1, max_length // 8))
    kept = rest[: max_length - least]
    room = max_length - len(kept)
    cut_prompt = len(prompt) > room
    if cut_prompt:
        tail = (room + 1) // 2
        prompt = np.concatenate([prompt[: room - tail], prompt[len(prompt) - tail :]])
    return np.concatenate([prompt, kept]), cut_prompt, len(kept) < len(rest)
