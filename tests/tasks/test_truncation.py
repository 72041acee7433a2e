from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apportion.tasks.truncation import pieces, shorten


def shorten_slowly(prompt, rest, length):
    """The policy one token at a time: the prompt's middle goes first, then the rest's end."""
    prompt, rest = list(prompt), list(rest)
    least = min(len(prompt), max(1, length // 8))
    while len(prompt) + len(rest) > length and len(prompt) > least:
        # Take from the longer half; from the head where they are equal, so that the tail keeps the odd one.
        prompt.pop((len(prompt) - 1) // 2)
    while len(prompt) + len(rest) > length:
        rest.pop()
    return prompt + rest


@given(st.integers(0, 60), st.integers(1, 60), st.integers(2, 50))
def test_agrees_with_the_policy_done_slowly(p, r, length):
    prompt, rest = np.arange(p), ~np.arange(r)
    fitted, cut_prompt, cut_rest = shorten(prompt, rest, length)
    assert len(fitted) == min(length, p + r)
    assert cut_rest == ((fitted < 0).sum() < r)
    assert cut_prompt == ((fitted >= 0).sum() < p)
    assert (fitted < 0).any()
    kept = fitted[fitted >= 0]
    if cut_prompt and len(kept) > 1:
        assert kept[0] == 0
        assert kept[-1] == p - 1
    slow = shorten_slowly(prompt, rest, length)
    assert sorted(fitted[fitted < 0]) == sorted(t for t in slow if t < 0)
    assert len(kept) == sum(t >= 0 for t in slow)
    if len(kept):
        gaps = np.diff(kept) > 1
        assert gaps.sum() <= 1


def test_head_and_tail_stay_and_the_completion_is_whole():
    fitted, cut_prompt, cut_rest = shorten(np.arange(100), ~np.arange(4), 10)
    assert fitted.tolist() == [0, 1, 2, 97, 98, 99, -1, -2, -3, -4]
    assert (cut_prompt, cut_rest) == (True, False)


@given(st.integers(0, 1), st.integers(1, 80), st.integers(2, 20))
def test_pieces_supervise_every_token_once_and_in_order(start, n, length):
    """With a start token everything after it is supervised, without one everything after the first."""
    text = ~np.arange(start + n)
    text[0] = 0
    cut = pieces(text, length)
    assert [token for piece in cut for token in piece[1:]] == text[1:].tolist()
    assert all(len(piece) == length for piece in cut[:-1]) and 1 <= len(cut[-1]) <= length
    assert all(piece[0] == ~before[-1] for before, piece in pairwise(cut))
    assert len(cut) == 1 or all((piece < 0).any() for piece in cut)
    assert text[1:].max(initial=-1) < 0, "the text itself was changed"
