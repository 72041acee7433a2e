"""What a model should be good at: named targets with their importance, and the examples each is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apportion._errors import ApportionError, nearest
from apportion.tasks.encoded import EncodedCollection
from apportion.tasks.validation import Picked, halves


@dataclass(frozen=True)
class Targets:
    """V targets, in a fixed order.

    Attributes:
        names: Theirs.
        importance: w > 0, (V,) float64.
        report: Per target, the examples that losses are reported on; no method sees them.
        steer: Per target, the examples that methods may see.
        are_tasks: Whether the targets are the training tasks, one for one: then losses of one are losses of the other.
    """

    names: tuple[str, ...]
    importance: Tensor
    report: Sequence[Sequence[Picked]]
    steer: Sequence[Sequence[Picked]]
    are_tasks: bool

    def __len__(self) -> int:
        return len(self.names)


def targets_of_tasks(tasks: EncodedCollection) -> tuple[Targets, list[str]]:
    """Return the tasks' validation halves as targets, all alike, and sentences about exceptions."""
    report, steer, findings = halves(tasks)
    importance = torch.ones(len(tasks.names), dtype=torch.float64)
    return Targets(tasks.names, importance, report, steer, are_tasks=True), findings


def named_targets(held_out: Targets, importance: Mapping[str, float]) -> Targets:
    """Return those of the tasks' targets that are named, in the tasks' order, each with its importance.

    Raises:
        ApportionError: A name that is no task.
    """
    for name in importance:
        if name not in held_out.names:
            raise ApportionError(f"Unknown task '{name}' under 'targets.tasks'{nearest(name, held_out.names)}.")
    chosen = [i for i, name in enumerate(held_out.names) if name in importance]
    # What is picked names the target that it is of.
    report, steer = (
        [[(at, split, index) for _, split, index in halves[i]] for at, i in enumerate(chosen)]
        for halves in (held_out.report, held_out.steer)
    )
    names = tuple(held_out.names[i] for i in chosen)
    weights = torch.tensor([importance[name] for name in names], dtype=torch.float64)
    return Targets(names, weights, report, steer, are_tasks=names == held_out.names)
