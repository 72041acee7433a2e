"""What one unit of training is tested on: random tasks, a model's prices and a bench, without a recipe."""

from __future__ import annotations

import numpy as np
import torch

from apportion.budget import Budget, Ledger
from apportion.budget.allowance import Allowance
from apportion.models.flops import ModelFlops
from apportion.signals._records import Anchors, Bench, Moment
from apportion.tasks import EncodedCollection, EncodedSplit, EncodedTask
from apportion.tasks.targets import held_out as halves_of
from tests.tiny import tiny_model

NAMES = ("copy", "reverse", "sort", "upper")
VOCAB = 61


def random_split(rng, count, longest=12):
    """Examples of 4 to ``longest`` tokens, a few of the last of them labelled."""
    examples = []
    for _ in range(count):
        tokens = rng.integers(3, VOCAB, rng.integers(4, longest + 1))
        labels = tokens.copy()
        labels[: rng.integers(1, len(tokens))] = -100
        examples.append((tokens, labels))
    return EncodedSplit.from_arrays([str(i) for i in range(count)], examples)


def random_tasks(sizes=(12, 20, 7), seed=0, longest=12):
    """Tasks with train splits of these sizes and validation splits of eight."""
    rng = np.random.default_rng(seed)
    tasks = [
        EncodedTask(name, *(random_split(rng, n, longest) for n in (size, 8, 0)))
        for name, size in zip(NAMES, sizes, strict=False)
    ]
    return EncodedCollection(tasks, [], f"seed {seed}")


def small_model(seed=0):
    """A model of one layer, in evaluation mode."""
    return tiny_model("llama", hidden=16, layers=1, vocab=VOCAB, seed=seed).eval()


def make_bench(tasks, model, limit=10**6, unit="supervised", reserve=0.0, importance=None):
    """A bench over these tasks; ``importance`` names the targets, all tasks alike where it is None."""
    held_out, _ = halves_of(tasks)
    return Bench(
        tasks=tasks,
        targets=held_out if importance is None else held_out.named(importance, tasks.names),
        steer=held_out.steer,
        look_ahead=[[(i, task.train, k) for k in range(len(task.train))] for i, task in enumerate(tasks)],
        anchors=Anchors(),
        allowance=Allowance(Ledger(Budget(unit, limit)), reserve),
        prices=ModelFlops.of(model),
        batch_size=8,
        pad_id=0,
        several=False,
    )


def make_moment(model, step, optimizer=None, lr=1e-2):
    """Just before that step; without an optimizer, of plain SGD."""
    return Moment(model, step, optimizer or torch.optim.SGD(model.parameters(), lr=lr), lr)
