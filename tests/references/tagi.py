"""Slow, literal: the pure functions of TAGI (arXiv 2406.12382), one number at a time, and ROUGE-L from its definition."""

from __future__ import annotations

import math


def softmax(row, temperature):
    """p_v = exp(x_v / T) / sum_u exp(x_u / T)."""
    highest = max(row)
    powers = [math.exp((x - highest) / temperature) for x in row]
    return [power / sum(powers) for power in powers]


def z_scores(row):
    """(x - mean) / (std + 1e-7), the standard deviation over n - 1 as in the public code."""
    mean = sum(row) / len(row)
    std = math.sqrt(sum((x - mean) ** 2 for x in row) / (len(row) - 1))
    return [(x - mean) / (std + 1e-7) for x in row]


def kl(student, teacher, examples, n_examples, temperature, standardise=False):
    """T^2 times the mean over an example's positions of sum_v p_v log(p_v / q_v), p the teacher's."""
    result = []
    for k in range(n_examples):
        rows = []
        for s, t, owner in zip(student, teacher, examples, strict=True):
            if owner != k:
                continue
            p = softmax(z_scores(t) if standardise else t, temperature)
            q = softmax(z_scores(s) if standardise else s, temperature)
            rows.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        result.append(sum(rows) / len(rows) if rows else 0.0)
    return result


def delta_w(A, B, scale=1.0):
    """The dense change of the transposed weight, entry by entry."""
    return [[scale * sum(a * B[j][k] for j, a in enumerate(row)) for k in range(len(B[0]))] for row in A]


def mean_square(one, other):
    """The mean over entries of the squared difference of two matrices."""
    squares = [(a - b) ** 2 for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(squares) / len(squares)


def factor_distance(A, B, lora_A, lora_B):
    """L_ins of one module against PEFT's matrices, lora_A (r, d_in) and lora_B (d_out, r), like beside like."""
    return mean_square(A, list(zip(*lora_A, strict=True))) + mean_square(B, list(zip(*lora_B, strict=True)))


def common(one, other):
    """Length of the longest common subsequence, by trying both ways at each difference."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + common(one[1:], other[1:])
    return max(common(one[1:], other), common(one, other[1:]))


def rouge_l(prediction, references):
    """The best F1 of precision LCS / m and recall LCS / n, on lower-cased words that need no stemming."""
    best = 0.0
    for reference in references:
        said, meant = prediction.lower().split(), reference.lower().split()
        shared = common(said, meant)
        if shared:
            precision, recall = shared / len(said), shared / len(meant)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best
