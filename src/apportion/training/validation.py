"""The two halves of the validation split: one for the report, which no method sees, and one that methods steer by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apportion.tasks import EncodedCollection, EncodedSplit
from apportion.tasks.batches import Batch, collate

Picked = tuple[int, EncodedSplit, int]


def halves(collection: EncodedCollection) -> tuple[list[list[Picked]], list[list[Picked]], list[str]]:
    """Split each task's validation examples in two, the same way for every seed and method.

    A task with a single validation example reports on it and steers by its train split instead.

    Returns:
        Per task the reporting half and the steering half, as (task, split, index), and sentences about exceptions.
    """
    report: list[list[Picked]] = []
    steer: list[list[Picked]] = []
    findings: list[str] = []
    for task, encoded in enumerate(collection.tasks):
        order = np.random.default_rng([0, len(encoded.validation)]).permutation(len(encoded.validation))
        cut = (len(order) + 1) // 2
        report.append([(task, encoded.validation, int(i)) for i in order[:cut]])
        if cut < len(order):
            steer.append([(task, encoded.validation, int(i)) for i in order[cut:]])
        else:
            train = np.random.default_rng([1, len(encoded.train)]).permutation(len(encoded.train))
            steer.append([(task, encoded.train, int(i)) for i in train[:64]])
            findings.append(
                f"Task '{encoded.name}' has a single validation example: methods that steer by validation losses "
                "use its train split instead. A larger 'tasks.validation' share would give it more."
            )
    return report, steer, findings


def batched(picked: Sequence[Picked], batch_size: int, pad_id: int) -> list[Batch]:
    """Collate in order of length, so that little is padding."""
    ordered = sorted(picked, key=lambda item: int(item[1].processed[item[2]]))
    return [
        collate([split.example(index) for _, split, index in part], [task for task, _, _ in part], pad_id)
        for part in (ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size))
    ]


def rotating(pool: Sequence[Sequence[Picked]], count: int, turn: int) -> list[Picked]:
    """Return ``count`` examples a task, a new stretch of each task's pool every ``turn``, wrapping around."""
    chosen: list[Picked] = []
    for items in pool:
        take = min(count, len(items))
        chosen.extend(items[(turn * take + k) % len(items)] for k in range(take))
    return chosen
