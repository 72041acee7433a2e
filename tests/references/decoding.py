"""What each method of reading a cache keeps, one query group and one head at a time, by sets and loops in fp64."""

from __future__ import annotations

import math

import torch


def sylvester(size):
    """The orthonormal Hadamard matrix by Sylvester's rule, as lists."""
    rows = [[1.0]]
    while len(rows) < size:
        rows = [row + row for row in rows] + [row + [-x for x in row] for row in rows]
    return torch.tensor(rows, dtype=torch.float64) / math.sqrt(size)


def attention(queries, keys, values, kept, scaling):
    """Softmax over the kept positions alone, (G, d)."""
    out = []
    for query in queries.double():
        scores = {j: scaling * float(query @ keys[j].double()) for j in kept}
        top = max(scores.values())
        weights = {j: math.exp(score - top) for j, score in scores.items()}
        total = sum(weights.values())
        out.append(sum(weights[j] / total * values[j].double() for j in kept))
    return torch.stack(out)


def top(scores, count, forced=()):
    """The forced positions, newest first, then those with the highest scores, the newer of equal ones; a set."""
    order = sorted(forced, reverse=True) + sorted(set(scores) - set(forced), key=lambda j: (-scores[j], -j))
    return set(order[:count])


def streaming(positions, budget, sinks):
    first = positions[: min(sinks, budget - 1)]
    rest = [j for j in positions if j not in first]
    return set(first) | set(rest[max(len(rest) - (budget - len(first)), 0) :])


def exact(queries, keys, positions, budget, scaling):
    mass = dict.fromkeys(positions, 0.0)
    for query in queries.double():
        weights = {j: math.exp(scaling * float(query @ keys[j].double())) for j in positions}
        for j in positions:
            mass[j] += weights[j] / sum(weights.values())
    return top(mass, budget, forced=[max(positions)])


def quest(queries, keys, positions, budget, page):
    """Pages are aligned to position 0, and their bounds include padding, which is never kept."""
    n = len(keys)
    scores = {}
    for p in range(math.ceil(n / page)):
        inside = range(p * page, min((p + 1) * page, n))
        if not set(inside) & set(positions):
            continue
        scores[p] = 0.0
        for query in queries.double():
            for c in range(keys.shape[1]):
                numbers = [float(keys[j, c]) for j in inside]
                scores[p] += max(float(query[c]) * min(numbers), float(query[c]) * max(numbers))
    last = max(scores)
    order = [last, *sorted(set(scores) - {last}, key=lambda p: (-scores[p], -p))][: math.ceil(budget / page)]
    kept = []
    for p in order:
        kept += [j for j in range((p + 1) * page - 1, p * page - 1, -1) if j in positions]
    return set(kept[:budget])


def snapkv(queries, keys, positions, budget, window, pooling, scaling):
    """What is kept of a prompt; ``queries`` (w, G, d) are its last w, ``positions`` its tokens that are no padding."""
    n, w = len(keys), len(queries)
    votes = [0.0] * n
    for i, group in enumerate(queries.double()):
        seen = [j for j in positions if j <= n - w + i]
        if n - w + i not in positions:
            continue
        for query in group:
            weights = {j: math.exp(scaling * float(query @ keys[j].double())) for j in seen}
            for j in seen:
                votes[j] += weights[j] / sum(weights.values())
    around = pooling // 2
    pooled = {j: max(votes[max(j - around, 0) : j + around + 1]) for j in positions}
    return top(pooled, budget, forced=[j for j in positions if j >= n - window])


def turned(x):
    """Rows of ``x`` with zeros behind them to a power of two of at least 8, times the Hadamard matrix."""
    size = 8
    while size < x.shape[-1]:
        size *= 2
    wide = torch.zeros(*x.shape[:-1], size, dtype=torch.float64)
    wide[..., : x.shape[-1]] = x.double()
    return wide @ sylvester(size)


def quartiles(x):
    """Numbers ceil(c / 4), ceil(c / 2) and ceil(3 c / 4) of all c numbers in order."""
    numbers = sorted(x.flatten().tolist())
    return [numbers[math.ceil(i * len(numbers) / 4) - 1] for i in (1, 2, 3)]


def coded(x, thresholds):
    return [[sum(float(v) > t for t in thresholds) for v in row] for row in x]


def distance(a, b, estimator="l1"):
    if estimator == "l1":
        return sum(abs(i - j) for i, j in zip(a, b, strict=True))
    return sum(i ^ j for i, j in zip(a, b, strict=True))


def adamas(queries, keys, positions, budget, *, of_keys, of_queries, estimator="l1", group="sum", recent=1, sinks=0):
    """Thresholds are given; the nearest by codes, with the newest and the first always among them."""
    asked, held = coded(turned(queries), of_queries), coded(turned(keys), of_keys)
    each = [{j: -distance(query, held[j], estimator) for j in positions} for query in asked]
    forced = positions[len(positions) - min(recent, len(positions)) :] + positions[:sinks]
    if group == "sum":
        return top({j: sum(scores[j] for scores in each) for j in positions}, budget, forced)
    ranks = dict.fromkeys(positions, budget)
    for scores in each:
        for rank, j in enumerate(sorted(positions, key=lambda j: (-scores[j], -j))[:budget]):
            ranks[j] = min(ranks[j], rank)
    return top({j: -rank for j, rank in ranks.items()}, budget, forced)
