"""What a model should be good at: named targets with their importance, and the examples each is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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

    def named(self, importance: Mapping[str, float], tasks: tuple[str, ...]) -> Targets:
        """Return those of these that are named, in these's order, each with its importance.

        Args:
            importance: By name.
            tasks: Names of the tasks that may be trained on.

        Raises:
            ApportionError: A name that is none of them.
        """
        for name in importance:
            if name not in self.names:
                raise ApportionError(f"Unknown task '{name}' under 'targets.tasks'{nearest(name, self.names)}.")
        return self._chosen([i for i, name in enumerate(self.names) if name in importance], importance, tasks)

    def behind(self, tasks: tuple[str, ...]) -> Targets:
        """Return the same with those of ``tasks``, names in these's order, first: what is not trained on comes after."""
        order = sorted(range(len(self.names)), key=lambda i: self.names[i] not in tasks)
        return self._chosen(order, dict(zip(self.names, self.importance.tolist(), strict=True)), tasks)

    def steered_by(self, count: int) -> Targets:
        """Return the same with at most ``count`` steering examples, evenly as far as there are, and one of each at least."""
        order = sorted((k, at) for at, items in enumerate(self.steer) for k in range(len(items)))[
            : max(count, len(self))
        ]
        kept = [sum(at == target for _, at in order) for target in range(len(self))]
        steer = [items[:n] for items, n in zip(self.steer, kept, strict=True)]
        return replace(self, steer=steer)

    def _chosen(self, places: Sequence[int], importance: Mapping[str, float], tasks: tuple[str, ...]) -> Targets:
        # What is picked names the target that it is of.
        report, steer = (
            [[(at, split, index) for _, split, index in halves[i]] for at, i in enumerate(places)]
            for halves in (self.report, self.steer)
        )
        names = tuple(self.names[i] for i in places)
        weights = torch.tensor([importance[name] for name in names], dtype=torch.float64)
        return Targets(names, weights, report, steer, are_tasks=names == tasks)


def held_out(tasks: EncodedCollection) -> tuple[Targets, list[str]]:
    """Return the validation halves of every task as targets, all alike, and sentences about exceptions.

    Raises:
        ApportionError: A task of a single prompt without anything to train on.
    """
    report, steer, findings = halves(tasks)
    importance = torch.ones(len(tasks.names), dtype=torch.float64)
    return Targets(tasks.names, importance, report, steer, are_tasks=True), findings
