"""Small pools of random examples, and a selection's scores of them without a run around it."""

from __future__ import annotations

import numpy as np
import torch

from apportion.budget import Budget, Ledger
from apportion.models.flops import ModelFlops
from apportion.selections import Limited
from apportion.signals._pool import Look, Pool, PoolBench
from apportion.tasks import EncodedCollection
from apportion.tasks.encoded import EncodedSplit, EncodedTask
from apportion.tasks.targets import held_out

VOCAB = 61


def examples(count, seed, longest=14, vocab=VOCAB):
    """Pairs of ids and labels; the prompts differ in length, and so do the completions."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ids = rng.integers(3, vocab, size=int(rng.integers(4, longest)))
        labels = ids.copy()
        labels[: int(rng.integers(1, len(ids) - 1))] = -100
        found.append((ids, labels))
    return found


def split(pairs, name="x"):
    return EncodedSplit.from_arrays([f"{name}-{i:03d}" for i in range(len(pairs))], pairs)


def collection(sizes=(7, 5, 6), seed=0, validation=6):
    """Tasks of these sizes, ``validation`` held-out examples each, of which half is steered by."""
    tasks = [
        EncodedTask(
            name,
            split(examples(size, 10 * seed + at), name),
            split(examples(validation, 1000 + 10 * seed + at), f"{name}-held"),
            split([], name),
        )
        for at, (name, size) in enumerate(zip("abcdefgh", sizes, strict=False))
    ]
    return EncodedCollection(tasks, [], "of a test")


def graded(count=24, seed=1):
    """Two tasks whose examples have more and more of a task's own words, and validation examples that have many."""

    def alike(count, seed, words):
        rng = np.random.default_rng(seed)
        for k in range(count):
            length = int(rng.integers(8, 20))
            own = rng.random(length) < k / (count - 1)
            ids = np.where(own, rng.integers(*words, length), rng.integers(3, VOCAB, length))
            yield ids, np.where(np.arange(length) < 2, -100, ids)

    tasks = [
        EncodedTask(
            name,
            split(list(alike(count, seed + at, words)), name),
            split(list(alike(12, seed + at + 9, words))[6:], f"{name}-held"),
            split([], name),
        )
        for at, (name, words) in enumerate((("a", (3, 12)), ("b", (30, 40))))
    ]
    return EncodedCollection(tasks, [], "of a test")


def bench(tasks, model, targets=None, batch_size=4):
    prices = ModelFlops.of(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    pool = Pool(tasks, [np.arange(len(task.train)) for task in tasks.tasks])
    ledger = Ledger(Budget("flops", 1e40))
    return PoolBench(pool, targets or held_out(tasks)[0], prices, trained, ledger, batch_size, 0, str)


def scores(method, bench, looks):
    """Return the method's scores of a whole pool, (n, V), over all looks."""
    (signal,) = method.needs()
    signal.attach(bench).survey()
    total = None
    for look in looks if isinstance(looks, list) else [Look(looks)]:
        signal.resume(look, signal.begin(look))
        part = look.weight * torch.cat([method.score(signal.show(chunk)) for chunk in bench.pool.chunks])
        total = part if total is None else total + part
    return total


def pairs(picked):
    """Return picked examples as ids and labels."""
    return [split.example(i) for _, split, i in picked]


def pool_pairs(bench):
    return [pair for chunk in bench.pool.chunks for pair in pairs(chunk)]


def target_pairs(bench):
    return [pairs(items) for items in bench.targets.steer]


def reordered(tasks, seed=0):
    """Return the tasks in another order, the examples of each in another, and where each example of the new pool was."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *(len(task.train) for task in tasks.tasks)])
    places, found = [], []
    for at in rng.permutation(len(tasks)):
        task = tasks.tasks[at]
        order = rng.permutation(len(task.train))
        places += (starts[at] + order).tolist()
        again = EncodedSplit.from_arrays([task.train.ids[i] for i in order], [task.train.example(i) for i in order])
        found.append(EncodedTask(task.name, again, task.validation, task.test))
    return EncodedCollection(found, [], "of a test"), places


class Alike(Limited):
    """A selection of one's own package: all examples are equal."""

    def blind(self, sizes, seed):
        return torch.zeros(sum(sizes), 1)
