"""Encoded plain texts cut for pretraining."""

from __future__ import annotations

import numpy as np

from apportion._errors import ApportionError
from apportion.models.tagi.splitting import split_text
from apportion.tasks import EncodedCollection, EncodedSplit, EncodedTask
from apportion.tasks.encoded import IGNORED


def cut_texts(tasks: EncodedCollection) -> EncodedCollection:
    """Return plain texts relabelled for pretraining: only what comes after the upper of two random cuts is supervised.

    The model cuts the rest in instruction and input (`splitting.cut_of`). Texts under three tokens are left out.

    Raises:
        ApportionError: A task without a text that can be cut.
    """
    cut = []
    for task in tasks:
        splits = [
            _cut_split(task.name, split, seed) for seed, split in enumerate((task.train, task.validation, task.test))
        ]
        cut.append(EncodedTask(task.name, splits[0], splits[1], splits[2]))
    return EncodedCollection(cut, tasks.findings, f"{tasks.fingerprint}-cut")


def _cut_split(name: str, split: EncodedSplit, seed: int) -> EncodedSplit:
    ids, examples, keys = [], [], []
    for index in range(len(split)):
        tokens, labels = split.example(index)
        if len(tokens) < 3:
            continue
        a, b, _ = split_text(tokens, np.random.default_rng([seed, index]))
        labels = tokens.copy()
        labels[: len(a) + len(b)] = IGNORED
        ids.append(split.ids[index])
        keys.append(int(split.keys[index]))
        examples.append((tokens, labels))
    if len(split) and not examples:
        raise ApportionError(f"Task '{name}' has no text of three tokens or more to pretrain on.")
    return EncodedSplit.from_arrays(ids, examples, keys)
