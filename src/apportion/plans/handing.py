"""What is handed over to another trainer: a run's recipe as plain values, and its train splits as rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apportion._errors import ApportionError
from apportion.exports._exporter import KNOBS, Exporter, Handed, Shape, TaskFile
from apportion.exports.notes import Told
from apportion.exports.shares import TaskShare
from apportion.models.causal import BASE
from apportion.plans.build import Data, load_data, recomputes
from apportion.plans.recipe import Recipe, parse_recipe
from apportion.plans.rows import kind_of, row_of, trained_on
from apportion.plans.selecting import FILE, kept_rows
from apportion.runs import RunRecord
from apportion.tasks import Example
from apportion.tasks.files import expand
from apportion.tasks.goals import DataSpec

DATA = "data"
_ORDER = 8  # the stream of random numbers that rows are put in order by
# Arguments that say how a run is watched, which nobody misses elsewhere.
_OURS = ("per_device_eval_batch_size", "report_to", "run_name", "project", "trackio_space_id")
_LONGEST = 60

Rows = Iterator[Mapping[str, Any]]


def hand_over(
    exporter: Exporter, run: RunRecord, shares: Sequence[TaskShare], out: Path
) -> tuple[Handed, dict[str, Rows], Told]:
    """Return a run as the trainer is told it, the rows of each file, and what is known of the run beside.

    Args:
        exporter: Of the trainer.
        run: A finished run.
        shares: What each task gave it.
        out: Where it will be written.

    Raises:
        ApportionError: A kind of model that no other trainer trains, examples that this one does not read, data that
            changed since the run or cannot be read, or a folder among them.
    """
    recipe = parse_recipe(run.recipe)
    for block in (recipe.tasks, recipe.targets):
        if block is not None:
            block.keep_out(out)
    kind = recipe.model_kind()
    if not kind.answers:
        raise kind.refusal("An export", "; without --to it shows the shares")
    data = _data(recipe, run)
    templated = bool(getattr(data.tokenizer, "chat_template", None))
    drawn = [share for share in shares if share.examples]
    examples = _examples(recipe, data, {share.name for share in drawn})
    shapes = exporter.shaped({name: kind_of(name, of, templated) for name, of in examples.items()})
    files = [
        task_file(number, share, len(examples[share.name]), shapes[share.name]) for number, share in enumerate(drawn, 1)
    ]
    end = str(data.tokenizer.eos_token or "") if exporter.ends else ""
    rows = {
        file.file: _rows(examples[file.share.name], file.shape, end, [_ORDER, recipe.seed, number])
        for number, file in enumerate(files)
    }
    undrawn = [share.name for share in shares if not share.examples]
    return _handed(recipe, run, files, templated), rows, _told(recipe, run, undrawn)


def task_file(number: int, share: TaskShare, rows: int, shape: Shape) -> TaskFile:
    """Return a task's file, under a name that is no other's on any disk, whatever the task is called."""
    letters = re.sub(r"[^A-Za-z0-9._-]+", "-", share.name).strip("-.")[:_LONGEST]
    file = f"{DATA}/{'-'.join(part for part in (f'{number:02d}', letters) if part)}.jsonl"
    # Of a long text each piece was an example; what counts is how often all of them were seen.
    return TaskFile(share, file, rows, max(1, round(share.epochs * rows)), shape)


def _data(recipe: Recipe, run: RunRecord) -> Data:
    """Return the run's data, with what a selection kept of them alone."""
    data = load_data(recipe)
    if run.summary is None or data.tasks.fingerprint != run.summary["fingerprint"]:
        raise ApportionError(
            f"The tasks' data or the tokenizer changed since the run '{run.path}': put them back to export it."
        )
    chosen = recipe.chosen()
    return data if chosen.keeps_all else data.kept(kept_rows(chosen.given() or run.path / FILE, data))


def _examples(recipe: Recipe, data: Data, names: set[str]) -> dict[str, list[Example]]:
    """Return the examples of each task's train split that were trained on, in the collection's order."""
    collection = DataSpec(recipe.tasks, recipe.targets).load()
    return {
        task.name: trained_on(collection[task.name].train, task.train)
        for task in data.tasks.tasks
        if task.name in names
    }


def _rows(examples: Sequence[Example], shape: Shape, end: str, seed: list[int]) -> Rows:
    """Yield the rows in a random order, so that the first ones of a file are a fair part of it."""
    for index in np.random.default_rng(seed).permutation(len(examples)):
        yield row_of(examples[index], shape, end)


def _handed(recipe: Recipe, run: RunRecord, files: Sequence[TaskFile], templated: bool) -> Handed:
    args = recipe.arguments(run.path)
    plain: dict[str, Any] = {name: getattr(args, name) for name in KNOBS}
    plain |= {
        "lr_scheduler_type": args.lr_scheduler_type.value,
        "optim": args.optim.value,
        "gradient_checkpointing": recomputes(args),
        "bf16": bool(args.bf16),
    }
    return Handed(
        tasks=tuple(files),
        model=_model(recipe, run.path),
        lora=None if recipe.lora is None else recipe.lora.model_dump(),
        training=plain,
        given=frozenset(recipe.training),
        dtype=recipe.model.dtype,
        attention=recipe.model.attention,
        max_length=recipe.tasks.max_length,
        packing=recipe.packing,
        seed=recipe.seed,
        templated=templated,
    )


def _model(recipe: Recipe, run: Path) -> str:
    """Return the model to start from: that of the recipe, or the run's own where that was made from a config."""
    named = recipe.model.name
    if named is None:
        return str((run / "model" / (BASE if recipe.lora else "")).absolute())
    return str(expand(named).absolute()) if expand(named).exists() else named


def _told(recipe: Recipe, run: RunRecord, undrawn: Sequence[str]) -> Told:
    capped = recipe.targets is not None and recipe.targets.train > 0
    tokenizer = recipe.model.tokenizer
    return Told(
        moved=run.moved,
        weights=recipe.weights["type"],
        cuts=recipe.thinking.cuts if recipe.thinking else 0.0,
        capped=list(run.targets) if capped else [],
        undrawn=undrawn,
        scratch=recipe.model.name is None,
        tokenizer=tokenizer if recipe.model.name is not None and isinstance(tokenizer, str) else None,
        unsaid=[name for name in recipe.training if name not in (*KNOBS, *_OURS)],
    )
