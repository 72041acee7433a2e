"""The anchors of a weighting: which validation examples, or files of the user's, training examples are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion._config import validate
from apportion._errors import ApportionError
from apportion.signals._records import Anchors
from apportion.signals._signal import Signal
from apportion.tasks import EncodedSplit, TasksSpec, encode_examples
from apportion.tasks.validation import Picked

if TYPE_CHECKING:
    from apportion.plans.build import Data


def find_anchors(signals: Sequence[Signal], data: Data, max_length: int) -> Anchors:
    """Return the anchors that signals ask for, spread evenly over the targets' steering halves or over the files.

    Args:
        signals: Those of one method, one of which may ask.
        data: The targets, and the tokenizer of the files.
        max_length: Longest example of a file, in tokens.

    Raises:
        ApportionError: A file is missing or broken, or holds nothing to compare with.
    """
    asked = next((signal.anchors for signal in signals if signal.anchors is not None), None)
    if asked is None:
        return Anchors()
    if asked.files is None:
        return Anchors(_evenly(data.targets.steer, asked.count), "")
    splits = [split for file in asked.files for split in _read(file, data.tokenizer, max_length)]
    digest = hashlib.blake2b(digest_size=16)
    groups = []
    for number, split in enumerate(splits):
        order = np.random.default_rng([3, len(split)]).permutation(len(split))
        groups.append([(number, split, int(i)) for i in order])
        for i in range(len(split)):
            digest.update(split.example(i)[0].tobytes())
    return Anchors(_evenly(groups, asked.count), digest.hexdigest())


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
