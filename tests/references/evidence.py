"""Evidence that a task is worth more than others, example by example and in plain Python: slow and literal."""

from __future__ import annotations

import math
from collections.abc import Sequence

Read = tuple[int, float]
"""A task, and what one of its examples was read to add to the objective's decrease."""


def t_values(directions: Sequence[Sequence[Read]], tasks: int, memory: float, trusted: float = 4) -> list[float]:
    """Return each task's mean effect over its standard error, as of the last direction.

    Args:
        directions: What was read along each direction, in their order.
        tasks: T.
        memory: What a new direction leaves of everything before it.
        trusted: Reads at which a task counts half in the average.
    """
    weight, effect = [0.0] * tasks, [0.0] * tasks
    for number, reads in enumerate(directions):
        if number:
            weight, effect = [memory * w for w in weight], [memory * e for e in effect]
        of = [[gain for task, gain in reads if task == i] for i in range(tasks)]
        means = [sum(gains) / len(gains) if gains else 0.0 for gains in of]
        free = len(reads) - sum(1 for gains in of if gains)
        if free < 1:
            continue
        spread = math.sqrt(sum((gain - means[i]) ** 2 for i in range(tasks) for gain in of[i]) / free)
        trust = [len(gains) / (len(gains) + trusted) for gains in of]
        usual = sum(t * m for t, m in zip(trust, means, strict=True)) / sum(trust)
        for i in range(tasks):
            for gain in of[i]:
                weight[i] += 1
                effect[i] += (gain - usual) / spread
    return [e / math.sqrt(w) if w else 0.0 for w, e in zip(weight, effect, strict=True)]
