"""The two halves of the validation split: one for the report, which no method sees, and one that methods steer by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apportion._errors import ApportionError
from apportion.tasks import EncodedCollection, EncodedSplit
from apportion.tasks.batches import Batch, collate

Picked = tuple[int, EncodedSplit, int]


def halves(collection: EncodedCollection) -> tuple[list[list[Picked]], list[list[Picked]], list[str]]:
    """Split each task's validation examples in two, by prompt, the same way for every seed and method.

    All examples of one prompt, whatever their task, are in one half. A task with a single validation prompt reports on it
    and steers by its train split instead, and so does one whose other prompts another task reports on.

    Returns:
        Per task the reporting half and the steering half, as (task, split, index), and sentences about exceptions.

    Raises:
        ApportionError: A task of a single prompt without anything to train on.
    """
    orders = [_prompts(task.validation) for task in collection.tasks]
    reported = _reported(orders)
    report: list[list[Picked]] = []
    steer: list[list[Picked]] = []
    findings: list[str] = []
    for task, (encoded, order) in enumerate(zip(collection.tasks, orders, strict=True)):
        sides: dict[bool, list[Picked]] = {True: [], False: []}
        for key, places in order.items():
            sides[reported[key]].extend((task, encoded.validation, i) for i in places)
        report.append(sides[True])
        if sides[False]:
            steer.append(sides[False])
        elif not len(encoded.train):
            raise ApportionError(
                f"Target '{encoded.name}' has a single prompt to itself, which cannot be both steered by and reported on: "
                "add examples with other prompts."
            )
        else:
            train = np.random.default_rng([1, len(encoded.train)]).permutation(len(encoded.train))
            steer.append([(task, encoded.train, int(i)) for i in train[:64]])
            kind, block = ("Target", "targets") if encoded.name in collection.targets else ("Task", "tasks")
            findings.append(
                f"{kind} '{encoded.name}' has a single validation prompt to itself: methods that steer by validation losses "
                f"use its train split instead. A larger '{block}.validation' share would give it more."
            )
    return report, steer, findings


def _prompts(split: EncodedSplit) -> dict[int, list[int]]:
    """Return the examples of each prompt by its key, the prompts in a seeded order."""
    places: dict[int, list[int]] = {}
    for i, key in enumerate(split.keys.tolist()):
        places.setdefault(key, []).append(i)
    keys = list(places)
    return {keys[i]: places[keys[i]] for i in np.random.default_rng([0, len(keys)]).permutation(len(keys))}


def _reported(orders: Sequence[dict[int, list[int]]]) -> dict[int, bool]:
    """Say of each prompt whether it is reported on: half of each task's, rounded up, where prompts are not shared."""
    reported: dict[int, bool] = {}
    for order in orders:
        open_places = (len(order) + 1) // 2 - sum(reported.get(key, False) for key in order)
        for key in order:
            if key not in reported:
                reported[key] = open_places > 0
                open_places -= reported[key]
        if order and not any(reported[key] for key in order):
            # All of its prompts were steered by in tasks before it: those lose one, which they can do without.
            reported[next(iter(order))] = True
    return reported


def by_length(picked: Sequence[Picked]) -> list[Picked]:
    """Return the examples in the order that `batched` lays them out in."""
    return sorted(picked, key=lambda item: int(item[1].processed[item[2]]))


def batched(picked: Sequence[Picked], batch_size: int, pad_id: int) -> list[Batch]:
    """Collate in order of length, so that little is padding."""
    ordered = by_length(picked)
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
