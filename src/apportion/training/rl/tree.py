"""Traces as rows of a batch: one row a roll-out, its answers side by side behind the one thinking they share.

A row is the prompt, the thinking, what ended it and its first answer, and behind that each further answer with its own
close tag. A token of such a piece sees the prompt, the thinking up to its cut, and its own piece; its position is
what it was when it was written. So each trained token has the log-probability that it has in a sequence of its own, at a
fraction of the tokens. The tests hold rows to sequences one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apportion.training.rl.traces import Trace, segment_of

_PADDING = -1
_TRUNK = 0


@dataclass(frozen=True)
class Row:
    """One roll-out's row, prompt and what follows it, (n,) each.

    Attributes:
        prompt: How many tokens of it are the prompt.
        ids: Tokens.
        positions: Places that they had.
        piece: 0 for prompt, thinking and the first answer, then a number an answer.
        reach: How many tokens of the trunk a token of a piece sees.
        trained: Whether the model chose the token, and it is trained here.
        advantages: Of trained tokens, 0 elsewhere.
    """

    prompt: int
    ids: np.ndarray
    positions: np.ndarray
    piece: np.ndarray
    reach: np.ndarray
    trained: np.ndarray
    advantages: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def tree(trace: Trace, budgets: Sequence[int], thinking: np.ndarray, summaries: np.ndarray) -> Row:
    """Return a trace's row.

    Args:
        trace: The roll-out.
        budgets: S of them.
        thinking: Advantages of its segments, (S,).
        summaries: Advantages of its answers, (S, A).
    """
    last = len(budgets) - 1
    first = trace.summaries[last][0]
    prompt = trace.problem.ids
    segments = [segment_of(place, budgets) for place in range(len(trace.thinking))]
    parts = [
        (prompt, [False] * len(prompt), [0.0] * len(prompt)),
        (trace.thinking, [True] * len(trace.thinking), [float(thinking[s]) for s in segments]),
        # An end that the model chose is the last token of its thinking.
        (trace.tail, list(trace.chosen), [float(thinking[trace.end])] * len(trace.tail)),
        (first.ids, [True] * len(first.ids), [float(summaries[last, 0])] * len(first.ids)),
    ]
    ids = [token for part, _, _ in parts for token in part]
    trained = [flag for _, flags, _ in parts for flag in flags]
    advantages = [worth for _, _, worths in parts for worth in worths]
    positions, piece, reach = list(range(len(ids))), [_TRUNK] * len(ids), [0] * len(ids)
    number = _TRUNK
    for budget, cut in enumerate(trace.summaries):
        start, close = len(prompt) + trace.kept(budget, budgets), trace.close(budget)
        for which, summary in enumerate(cut):
            if (budget, which) == (last, 0):
                continue
            number += 1
            written = (*close, *summary.ids)
            ids += written
            trained += [False] * len(close) + [True] * len(summary.ids)
            advantages += [0.0] * len(close) + [float(summaries[budget, which])] * len(summary.ids)
            positions += range(start, start + len(written))
            piece += [number] * len(written)
            reach += [start] * len(written)
    flags = np.array(trained)
    return Row(
        len(prompt),
        np.array(ids),
        np.array(positions),
        np.array(piece),
        np.array(reach),
        flags,
        np.where(flags, advantages, 0.0),
    )


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, Tensor]:
    """Return rows as TRL takes them, prompts padded on the left and the rest on the right, and ``seen`` beside.

    ``prompt_ids``, ``prompt_mask`` (rows, P); ``completion_ids``, ``completion_mask``, ``tool_mask`` (1 where trained) and
    ``advantages`` (rows, T); ``position_ids`` (rows, P + T); ``seen`` (rows, 1, P + T, P + T), whether a query sees a key.
    """
    before = max(row.prompt for row in rows)
    width = before + max(len(row) - row.prompt for row in rows)
    columns = {
        name: np.full((len(rows), width), fill, kind)
        for name, fill, kind in (
            ("ids", pad_id, np.int64),
            ("positions", 0, np.int64),
            ("piece", _PADDING, np.int64),
            ("reach", 0, np.int64),
            ("trained", False, np.bool_),
            ("advantages", 0.0, np.float32),
        )
    }
    index = np.full((len(rows), width), _PADDING)
    for number, row in enumerate(rows):
        at = before - row.prompt
        for name, column in columns.items():
            column[number, at : at + len(row)] = getattr(row, name)
        index[number, at : at + len(row)] = np.arange(len(row))
    there = index >= 0
    piece, reach, place = columns["piece"], columns["reach"], np.arange(width)
    own = (piece[:, :, None] == piece[:, None, :]) & (place[:, None] >= place[None, :])
    # Indices in the trunk are positions, so that a cut is a number of them.
    trunk = (piece[:, None, :] == _TRUNK) & (index[:, None, :] < reach[:, :, None])
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    mask = torch.from_numpy(there).long()
    return {
        "prompt_ids": tensors["ids"][:, :before],
        "prompt_mask": mask[:, :before],
        "completion_ids": tensors["ids"][:, before:],
        "completion_mask": mask[:, before:],
        "tool_mask": tensors["trained"][:, before:].long(),
        "advantages": tensors["advantages"][:, before:],
        "position_ids": tensors["positions"],
        "seen": torch.from_numpy(own | trunk)[:, None],
    }


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention's scores: 0 where a key is seen.

    Eager attention adds what it is given, so that a mask of truth values would be wrong there without a word.
    """
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
