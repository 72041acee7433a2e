"""The values that a first recipe starts with, chosen by what was found."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from apportion.plans.looking import EPOCHS, Found

# Processed tokens that the small model trains on in a few minutes on two CPU cores.
_MINUTES = 400_000
# Supervised tokens below which a comparison says little.
_LITTLE, _LITTLE_PRETRAINED = 5_000, 50_000
_STEPS = 200
ARMS = {
    "uniform": "every task is drawn equally often",
    "proportional": "tasks are drawn as often as they are large: all data, concatenated",
    "upsample": "30 % of the draws on the targets, the rest uniformly",
    "adapt": "learns in training how often to draw each task",
}


@dataclass(frozen=True)
class Budget:
    """A budget as a recipe has it, the supervised tokens that it comes to, and why it is so large."""

    value: str
    tokens: int
    why: tuple[str, ...]


def budget_of(found: Found) -> Budget:
    """Return a budget that a newcomer can wait for: minutes of the small model, or a tenth of the data for a real one."""
    total = sum(task["supervised"] for task in found.tasks.values())
    once = f"All examples once are {total:,} supervised tokens."
    if found.pretrained is not None:
        share = min(100, max(10, -(-100 * _LITTLE_PRETRAINED // max(1, total))))
        why = (
            "A tenth of the data: enough to see which mixture is worth more, before that one gets all of it."
            if share == 10
            else "The data is small, so that less of it would say little."
        )
        return Budget(f"{share}%", total * share // 100, (why, once))
    even = int(len(found.tasks) * median(task["supervised"] for task in found.tasks.values()))
    minutes = _MINUTES * total // max(1, sum(task["processed"] for task in found.tasks.values()))
    least = min(EPOCHS * total, _LITTLE)
    tokens = _rounded(max(min(even, minutes), least, 1))
    if least >= min(even, minutes):
        why = "The data is small: with fewer tokens than this a comparison would say little."
    elif even <= minutes:
        why = (
            "One epoch of the median task times the number of tasks: what drawing them uniformly takes to see it once."
        )
    else:
        why = "About what this model trains on in a few minutes on two CPU cores."
    return Budget(f"{tokens // 1000}k" if tokens >= 10_000 else str(tokens), tokens, (why, once))


def batch_of(found: Found, budget: Budget) -> int:
    """Return the largest power of two of examples a step that leaves the budget some hundred steps, within usual bounds."""
    wanted = budget.tokens / mean_tokens(found) / _STEPS
    sizes = (4, 8, 16, 32) if found.pretrained is None else (2, 4, 8, 16)
    return max((size for size in sizes if size <= wanted), default=sizes[0])


def arms_of(found: Found) -> list[str]:
    """Return the mixtures that are worth comparing: one where there is nothing to mix, `upsample` where it can be."""
    if len(found.tasks) == 1:
        return ["uniform"]
    beside = len(found.targets) < len(found.tasks)
    return [arm for arm in ARMS if arm != "upsample" or (found.targets and beside)]


def mean_tokens(found: Found) -> float:
    """Return the supervised tokens of an example where tasks are drawn uniformly."""
    means = [task["supervised"] / task["examples"] for task in found.tasks.values() if task["examples"]]
    return max(1.0, sum(means) / max(1, len(means)))


def _rounded(number: int) -> int:
    """Return the number with two digits, rounded down: 61,234 is 61,000."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return number // unit * unit
