"""Online data mixing, literally: algorithm 1 of arXiv 2312.02406, one arm and one number at a time."""

import math


def shares(steps, count):
    """The mixture before each step and after the last; a step maps the arms that it drew to their losses."""
    rewards, found = [0.0] * count, []
    before = 1 / count
    for turn in range(1, len(steps) + 2):
        now = min(1 / count, math.sqrt(math.log(count) / (count * turn)))
        raised = [math.exp(before * reward) for reward in rewards]
        p = [(1 - count * now) * each / sum(raised) + now for each in raised]
        found.append(p)
        for arm, loss in steps[turn - 1].items() if turn <= len(steps) else ():
            rewards[arm] = 0.9 * rewards[arm] + 0.1 * loss / p[arm]
        before = now
    return found
