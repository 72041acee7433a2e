"""What a folder of data holds, looked at before there is a recipe for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from apportion._config import validate
from apportion._errors import ApportionError, nearest
from apportion.models.specs import ModelSpec
from apportion.tasks import EncodedCollection, EncodedTask, TasksSpec, load_encoded, load_tokenizer_trained
from apportion.tasks.files import located, stem, walk
from apportion.tasks.goals import DataSpec, TargetsSpec
from apportion.tasks.shapes import ACCEPTED
from apportion.tasks.sources._source import Columns
from apportion.tasks.spec import SourceSpec

S = TypeVar("S", bound=SourceSpec)

VOCABULARY = 2048
"""Of the tokenizer that is trained where no model is named."""
LONGEST, LONGEST_PRETRAINED = 512, 2048
"""Tokens of an example: beyond them a small model from scratch, or memory for a pretrained one, does not reach."""
EPOCHS = 4
"""How often a target's own examples may be seen: what the studies of targets were made with."""


@dataclass(frozen=True)
class Pretrained:
    """The model that was named: as the recipe names it, its parameters and the longest example that it reads."""

    name: str
    parameters: int
    longest: int


@dataclass(frozen=True)
class Found:
    """What was found, as plain data.

    Attributes:
        tasks: By name ``examples`` to train on and ``held_out`` ones, ``supervised`` and ``processed`` tokens of the former.
            Targets with data of their own come last.
        targets: Names of the targets, those with data of their own or of tasks.
        files: Of each file its ``format``, the columns that its rows have, those that are ``read``, and its ``rows``.
        findings: Dirt in the data, in sentences.
        bad_rows: How many rows cannot be read and are left out.
        lengths: Processed tokens of an example: ``median``, ``most`` (of 99 % of them) and ``longest``.
        blocks: The recipe's blocks ``tasks`` and, where there are targets, ``targets``, that read the data so.
        pretrained: The model, where one was named.
    """

    tasks: dict[str, dict[str, int]]
    targets: tuple[str, ...]
    files: tuple[Columns, ...]
    findings: tuple[str, ...]
    bad_rows: int
    lengths: dict[str, int]
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    pretrained: Pretrained | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def look(
    data: str | Path | Sequence[str | Path],
    *,
    model: str | None = None,
    targets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Found:
    """Look at a folder of files, one a task: what is there, how it is read, how many tokens it has.

    Args:
        data: The folder, one file, or several of either.
        model: A Hub name or a folder, whose tokenizer counts; None counts with a BPE trained on the data.
        targets: Names of tasks, or files with data of their own, that say what the model should be good at.
        settings: Further keys of the recipe's ``tasks`` block, such as ``{"columns": {"prompt": "question"}}``.

    Raises:
        ApportionError: Nothing there that can be read, a file whose columns no rule knows, a target that is neither a task
            nor a file, or a model that does not load.
    """
    roots = [_root(one) for one in ([data] if isinstance(data, str | Path) else data)]
    path = str(roots[0]) if len(roots) == 1 else [str(root) for root in roots]
    spec, files, bad = _readable(TasksSpec, {**(settings or {}), "path": path})
    collection = spec.load()
    spec = _validated(spec, [sum(len(task.split(s)) for s in ("train", "validation", "test")) for task in collection])
    goals = _goals(targets, collection.names, roots, settings or {})
    loaded = DataSpec(spec, goals)
    tokenizer, pretrained = _tokenizer(model, loaded)
    longest = min(LONGEST_PRETRAINED, pretrained.longest) if pretrained else LONGEST
    chosen = "max_length" in spec.model_fields_set
    longest = spec.max_length if chosen else longest
    encoded = load_encoded(loaded, tokenizer, longest)
    lengths = _lengths(encoded)
    if not chosen:
        spec = spec.model_copy(update={"max_length": min(longest, 64 * -(-lengths["most"] // 64))})
    blocks = {"tasks": spec, "targets": goals}
    return Found(
        tasks={task.name: _sizes(task) for task in encoded},
        targets=encoded.targets or (goals.tasks if goals and goals.tasks else ()),
        files=tuple(files),
        findings=tuple(encoded.findings),
        bad_rows=bad,
        lengths=lengths,
        blocks={name: _block(block) for name, block in blocks.items() if block is not None},
        pretrained=pretrained,
    )


def _root(data: str | Path) -> Path:
    root = located(data)
    if not walk(root):
        raise ApportionError(f"'{root}' is an empty folder: put your data there, one file a task.")
    return Path(os.path.abspath(root))  # noqa: PTH100 - links stay, unlike with resolve


def _readable(cls: type[S], values: dict[str, Any]) -> tuple[S, list[Columns], int]:
    """Return the block that reads the data, what its files have, and how many rows it leaves out."""
    spec = validate(cls, values, cls.block)
    files = spec.reader().columns_found()
    for file in files:
        if file.fields and not file.read:
            raise ApportionError(
                f"'{file.file}' has the columns {', '.join(file.fields)}, and a row needs {ACCEPTED}: say which is which, "
                "as in '--set columns.prompt=question --set columns.completion=answer', or rename them."
            )
    if not files or "on_bad" in values:
        return spec, files, 0
    skipping = validate(cls, {**values, "on_bad": "skip"}, cls.block)
    bad = sum(file.rows for file in files) - sum(len(task.examples) for task in skipping.reader().read().tasks)
    return (skipping if bad else spec), files, bad


def _validated(spec: TasksSpec, examples: Sequence[int]) -> TasksSpec:
    """Return the spec with a share to validate on that leaves small tasks something to be measured by."""
    if "validation" in spec.model_fields_set:
        return spec
    middle = median(examples)
    return spec.model_copy(update={"validation": 0.05 if middle >= 1000 else 0.1 if middle >= 200 else 0.2})


def _goals(
    targets: Sequence[str], tasks: Sequence[str], roots: Sequence[Path], settings: Mapping[str, Any]
) -> TargetsSpec | None:
    named: list[str] = []
    paths: list[str] = []
    for target in targets:
        file = Path(os.path.abspath(target))  # noqa: PTH100 - as above
        if target in tasks:
            named.append(target)
        elif file.is_file() and {file, *file.parents} & set(roots) and stem(file) in tasks:
            named.append(stem(file))
        elif file.exists():
            paths.append(str(file))
        else:
            raise ApportionError(f"'{target}' is neither a file nor one of the tasks{nearest(target, tasks)}.")
    if named and paths:
        raise ApportionError(
            f"'{named[0]}' is a task and '{paths[0]}' a file: targets are tasks of the data, or files elsewhere, not both."
        )
    if named:
        return validate(TargetsSpec, {"tasks": list(dict.fromkeys(named))}, "targets")
    if not paths:
        return None
    values: dict[str, Any] = {"path": paths[0] if len(paths) == 1 else paths, "train": EPOCHS}
    fits = all(file.read for file in validate(TargetsSpec, values, "targets").reader().columns_found())
    if not fits and "columns" in settings:
        values["columns"] = settings["columns"]
    return _readable(TargetsSpec, values)[0]


def _tokenizer(model: str | None, data: DataSpec) -> tuple[Any, Pretrained | None]:
    if model is None:
        return load_tokenizer_trained(data, "bpe", VOCABULARY), None
    from apportion.models.loading import build_model, load_tokenizer, model_config, parameters
    from apportion.tasks.files import expand

    name = str(expand(model).absolute()) if expand(model).exists() else model
    block = ModelSpec(name=name)
    tokenizer = load_tokenizer(block, data)
    shapes = build_model(block, tokenizer, lora=None, seed=0, meta=True)
    text = model_config(block, tokenizer).get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or LONGEST_PRETRAINED
    return tokenizer, Pretrained(name, parameters(shapes)["total"], longest)


def _lengths(encoded: EncodedCollection) -> dict[str, int]:
    processed = np.concatenate([split.processed for task in encoded for split in (task.train, task.validation)])
    most = np.quantile(processed, 0.99, method="higher")
    return {"median": int(np.median(processed)), "most": int(most), "longest": int(processed.max())}


def _sizes(task: EncodedTask) -> dict[str, int]:
    return {
        "examples": len(task.train),
        "held_out": len(task.validation) + len(task.test),
        "supervised": int(task.train.supervised.sum()),
        "processed": int(task.train.processed.sum()),
    }


def _block(spec: TasksSpec | TargetsSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True, exclude_none=True)
