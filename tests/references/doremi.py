"""DoReMi, literally: algorithm 1 of arXiv 2305.10429, one token at a time."""

import math


def excess(tokens, count, last):
    """The domains' excess losses; ``tokens`` are (domain, proxy's, reference's loss); an absent one keeps its last."""
    found = list(last)
    for domain in range(count):
        own = [max(proxy - reference, 0.0) for at, proxy, reference in tokens if at == domain]
        if own:
            found[domain] = sum(own) / len(own)
    return found


def step(alpha, scores, eta, c):
    """alpha after a step."""
    raised = [a * math.exp(eta * score) for a, score in zip(alpha, scores, strict=True)]
    return [(1 - c) * each / sum(raised) + c / len(alpha) for each in raised]
