"""Slow, literal: the scores of selections by their formulas, one example, one target and one checkpoint at a time."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from apportion.signals.projection import places


def bm25(documents, queries, k1, b):
    """Equation 1 of arXiv 2605.05227: each document's mean BM25 over the queries, with Lucene's idf; lists of terms."""
    mean_length = sum(map(len, documents)) / len(documents)
    means = []
    for document in documents:
        scores = []
        for query in queries:
            score = 0.0
            for term in query:
                holding = sum(term in other for other in documents)
                idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
                tf = document.count(term)
                score += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean_length))
            scores.append(score)
        means.append(sum(scores) / len(scores))
    return means


def mean_cosine(x, others):
    """Equation 2 of arXiv 2605.05227: the mean over ``others`` of their cosine with x."""
    return sum(float(F.cosine_similarity(x, v, dim=0)) for v in others) / len(others)


def turns(scores):
    """Take the targets by turns, each the best for it of what is left, the first of equals; returns the order taken.

    Args:
        scores: A list of V numbers for each example.
    """
    left, taken, target = list(range(len(scores))), [], 0
    while left:
        best = max(left, key=lambda i: (scores[i][target], -i))
        left.remove(best)
        taken.append(best)
        target = (target + 1) % len(scores[0])
    return taken


def loss(model, ids, labels):
    """The mean over supervised tokens of -log p(token | those before it), of one example alone."""
    logits = model(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0]
    losses = [F.cross_entropy(logits[t - 1], torch.as_tensor(labels[t])) for t in range(1, len(ids)) if labels[t] >= 0]
    return torch.stack(losses).mean()


def gradient(model, ids, labels):
    """The gradient of one example's loss, by parameter."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss(model, ids, labels), list(trained.values()), materialize_grads=True)
    return dict(zip(trained, found, strict=True))


def adam_feature(gradient, moments, betas, eps):
    """LESS, section 3: m' / (sqrt(v') + eps) without corrections of the bias, by parameter, laid end to end."""
    b1, b2 = betas
    parts = []
    for name, g in gradient.items():
        m, v = moments[name]
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        parts.append((m / (v.sqrt() + eps)).flatten())
    return torch.cat(parts)


def less(checkpoints, pool, targets, projection, betas, eps):
    """Definitions 3.1 and 3.2 of LESS: the largest over targets of the rate-weighted sum of mean cosines.

    Args:
        checkpoints: ``(model, moments by parameter, eta)`` of each.
        pool: ``(ids, labels)`` of each example.
        targets: Of each target, its examples.
        projection: R, (P, width), dense; or None for none.
    """

    def project(vector):
        return vector if projection is None else vector @ projection.to(vector)

    total = sum(eta for _, _, eta in checkpoints)
    influence = [[0.0] * len(targets) for _ in pool]
    for model, moments, eta in checkpoints:
        plain = [
            [project(torch.cat([g.flatten() for g in gradient(model, *v).values()])) for v in examples]
            for examples in targets
        ]
        for i, x in enumerate(pool):
            step = project(adam_feature(gradient(model, *x), moments, betas, eps))
            for j, vectors in enumerate(plain):
                influence[i][j] += eta / total * mean_cosine(step, vectors)
    return [max(row) for row in influence], influence


def dense_projection(length, width, seed):
    """Return R, (length, width) float64, written out number by number: one sign in each row."""
    found = torch.zeros(length, width, dtype=torch.float64)
    for start in range(0, length, width):
        order, signs = places(start, width, seed, torch.device("cpu"))
        for place, (number, sign) in enumerate(zip(order.tolist(), signs.tolist(), strict=True)):
            if start + number < length:
                found[start + number, place] = sign
    return found
