"""The anchors of a weighting: which validation examples, or files of the user's, training examples are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, zip_longest
from typing import Any

import numpy as np
from torch import Tensor

from apportion._config import validate
from apportion._errors import ApportionError
from apportion.tasks import EncodedCollection, EncodedSplit, TasksSpec, encode_examples
from apportion.tasks.validation import Picked
from apportion.weights._weighting import Anchored, PoolGuided


@dataclass(frozen=True)
class Anchors:
    """The examples, and a digest of the contents of files that they came from, empty where they came from the tasks."""

    picked: tuple[Picked, ...]
    fingerprint: str


NONE = Anchors((), "")


def find_anchors(
    method: Anchored,
    steer: Sequence[Sequence[Picked]],
    tokenizer: Any,  # noqa: ANN401
    max_length: int,
) -> Anchors:
    """Return at most ``method.anchors`` anchors, spread evenly over the tasks' steering halves or over the files.

    Args:
        method: Says how many, and from which files.
        steer: Per task, the validation examples that methods may see.
        tokenizer: Encodes the files.
        max_length: Longest example of a file, in tokens.

    Raises:
        ApportionError: A file is missing or broken, or holds nothing to compare with.
    """
    if method.files is None:
        return Anchors(_evenly(steer, method.anchors), "")
    splits = [split for file in method.files for split in _read(file, tokenizer, max_length)]
    digest = hashlib.blake2b(digest_size=16)
    groups = []
    for number, split in enumerate(splits):
        order = np.random.default_rng([3, len(split)]).permutation(len(split))
        groups.append([(number, split, int(i)) for i in order])
        for i in range(len(split)):
            digest.update(split.example(i)[0].tobytes())
    return Anchors(_evenly(groups, method.anchors), digest.hexdigest())


def _evenly(groups: Sequence[Sequence[Picked]], count: int) -> tuple[Picked, ...]:
    """Take the first of every group, then the second of every group, and so on."""
    rounds = zip_longest(*groups)
    return tuple(islice((item for items in rounds for item in items if item is not None), count))


def _read(file: str, tokenizer: Any, max_length: int) -> list[EncodedSplit]:  # noqa: ANN401
    tasks = validate(TasksSpec, {"path": file}, "weights.files").reader().read().tasks
    splits = [encode_examples(task.examples, tokenizer, max_length) for task in tasks]
    found = [split for split in splits if len(split)]
    if not found:
        raise ApportionError(
            f"'weights.files' names '{file}', which holds no example: name files with anchors in them."
        )
    return found


@lru_cache(maxsize=2)
def pool_weights(method: PoolGuided, tasks: EncodedCollection, anchors: Anchors) -> list[Tensor]:
    """Return, per task, the weights of its train examples, (n_i,) float32 each; counted once a process.

    Raises:
        ApportionError: The method cannot tell the examples apart.
    """
    splits = [task.train for task in tasks.tasks]
    pool = [split.example(i)[0] for split in splits for i in range(len(split))]
    weights = method.weigh(pool, [split.example(i)[0] for _, split, i in anchors.picked])
    return list(weights.split([len(split) for split in splits]))
