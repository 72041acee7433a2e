"""Thinking held to its budget, a row at a time: append, read the whole text again, compare slices of lists."""

from __future__ import annotations

import math

import torch


def scores_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].float()


def forced_next(written, tags, most):
    """What must come next, None where the model is free; and whether thinking goes on."""
    close = list(tags.close)
    ends = [i + len(close) for i in range(len(written)) if written[i : i + len(close)] == close]
    if not ends:
        if most is None or len(written) < most:
            return None, True
        for begun in range(min(len(close) - 1, len(written)), -1, -1):
            if written[len(written) - begun :] == close[:begun]:
                return close[begun], True
    after = len(written) - ends[0]
    if most is not None and ends[0] > most and after < len(tags.answer):
        return tags.answer[after], False
    return None, False


def think(model, prompt, tags, budget, new, *, ends=(), pick=None):
    """The tokens that are written in ``new`` steps; ``pick`` takes scores and returns a token, the best where None."""
    written = []
    for _ in range(new):
        scores = scores_of(model, list(prompt) + written)
        forced, thinking = forced_next(written, tags, budget.most)
        if forced is not None:
            only = torch.full_like(scores, -math.inf)
            only[forced] = 0.0
            scores = only
        elif thinking:
            scores[list(ends)] = -math.inf
            waits = written[budget.least :].count(tags.wait[0]) if budget.ignore else 0
            if len(written) < budget.least or waits < budget.ignore:
                wait, close = tags.wait[0], tags.close[0]
                both = torch.stack([scores[wait], scores[close]])
                scores[wait] = both.max() if pick is None else both.logsumexp(0)
                scores[close] = -math.inf
        written.append(int(scores.argmax()) if pick is None else pick(scores))
    return written


def beams(model, prompt, tags, budget, new, count):
    """The best of ``count`` beams after ``new`` tokens, no text ending before."""
    running = [(0.0, [])]
    for _ in range(new):
        found = []
        for total, written in running:
            forced, _ = forced_next(written, tags, budget.most)
            logs = scores_of(model, list(prompt) + written).log_softmax(-1)
            tokens = [(forced, 0.0)] if forced is not None else enumerate(logs.tolist())
            found += [(total + log, [*written, token]) for token, log in tokens]
        running = sorted(found, key=lambda one: -one[0])[:count]
    return running[0][1]
