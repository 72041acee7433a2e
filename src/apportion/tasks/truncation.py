"""How an example that is too long is shortened, and a plain text cut into several."""

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


def pieces(text: np.ndarray, max_length: int) -> list[np.ndarray]:
    """Cut a plain text into stretches of ``max_length`` tokens, the last one shorter, each supervised token in just one.

    A stretch begins with the last token of the one before, as context to predict its first supervised token from.

    Args:
        text: (n,) signed tokens, of which the first is context.
        max_length: Longest stretch, at least 2.
    """
    cut = [text[at : at + max_length].copy() for at in range(0, max(len(text) - 1, 1), max_length - 1)]
    for piece in cut:
        piece[:1] = np.where(piece[:1] < 0, ~piece[:1], piece[:1])
    return cut
