"""A first recipe for data that was looked at: every line says what it is for, and why it is what it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from apportion._errors import ApportionError
from apportion._yaml import flow
from apportion.plans.choosing import ARMS, Budget, arms_of, batch_of, budget_of, mean_tokens
from apportion.plans.looking import EPOCHS, LONGEST, VOCABULARY, Found
from apportion.runs import atomic_write_text
from apportion.tasks.findings import counted

# Bytes that training takes a parameter: itself, its gradient and Adam's two moments in fp32.
_BYTES = 16
# Parameters above which adapters are trained instead.
_LARGE = 1_000_000_000
# A target of fewer examples is hard to steer by, as the studies of targets found.
_FEW = 100
_SHOWN = 30
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def write_recipe(found: Found, out: str | Path) -> Path:
    """Write a commented recipe for what was found, and return its path.

    Args:
        found: What `look` returned.
        out: The file; one that is there is never written over.

    Raises:
        ApportionError: The file is there, would lie among the data, or cannot be written.
    """
    check_place(paths_of(found), out)
    atomic_write_text(out, recipe_text(found, out))
    return Path(out)


def check_place(data: Sequence[str | Path], out: str | Path) -> None:
    """Refuse a file that is there already, and a place among the data, where the runs would be too.

    Raises:
        ApportionError: As said.
    """
    file = Path(out)
    if file.exists():
        raise ApportionError(f"'{file}' is there already: give a new file with --out, or delete this one.")
    if not file.absolute().parent.is_dir():
        raise ApportionError(f"There is no folder '{file.absolute().parent}' to write '{file.name}' to: make it first.")
    if any(file.resolve().is_relative_to(Path(one).resolve()) for one in data):
        raise ApportionError(
            f"'{file}' would lie among the data, and its runs beside it: start from another folder, or give one with --out."
        )


def paths_of(found: Found) -> list[str]:
    """Return where the data lies."""
    path = found.blocks["tasks"]["path"]
    return [path] if isinstance(path, str) else list(path)


def recipe_text(found: Found, out: str | Path = "recipe.yaml") -> str:
    """Return the recipe as YAML with a comment for each line; ``out`` is named in the commands at its top."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(flow=flow, comment=_plain)
    template = resources.files("apportion.plans").joinpath("init.jinja").read_text("utf-8")
    tasks, targets = found.blocks["tasks"], found.blocks.get("targets", {})
    budget = budget_of(found)
    batch = batch_of(found, budget)
    arms = arms_of(found)
    lora = found.pretrained is not None and found.pretrained.parameters > _LARGE
    name = _quoted(_plain(str(out)))
    return environment.from_string(template).render(
        commands=[f"apportion {command} {name}".ljust(len(name) + 20) for command in ("plan", "compare")],
        path=", ".join(paths_of(found)),
        pretrained=found.pretrained,
        lora=lora,
        longest=max(LONGEST, tasks["max_length"]),
        vocabulary=VOCABULARY,
        files=found.files,
        table=_table(found),
        dirt=[f"Found: {_plain(line)}" for line in found.findings],
        tasks=tasks,
        own={key: value for key, value in tasks.items() if key not in ("path", "validation", "max_length")},
        bad_rows=found.bad_rows,
        targets=targets,
        budget=budget,
        mixture="adapt" if "adapt" in arms else "uniform",
        rate="2.0e-3" if found.pretrained is None else "2.0e-4" if lora else "2.0e-5",
        batch=batch,
        accelerator=found.pretrained is not None and _accelerator(),
        arms=[(f"{arm}: {{mixture: {arm}}}".ljust(37), ARMS[arm]) for arm in arms],
        said=_said(found, budget, batch, lora),
    )


def overview(found: Found) -> list[str]:
    """Return what was found in lines: a line a task and a line a shape of rows, and a sentence for each finding."""
    return [*_table(found), *(f"Found: {_plain(line)}" for line in found.findings)]


def _said(found: Found, budget: Budget, batch: int, lora: bool) -> dict[str, Any]:
    examples = sum(task["examples"] for task in found.tasks.values())
    total = sum(task["supervised"] for task in found.tasks.values())
    steps = max(1, round(budget.tokens / mean_tokens(found) / batch))
    lengths, longest = found.lengths, found.blocks["tasks"]["max_length"]
    several = len(found.tasks) > 1
    parameters = found.pretrained.parameters if found.pretrained else 0
    kind = "adapters" if lora else "a small model from scratch" if not found.pretrained else "a pretrained model"
    return {
        "data": (
            f"{counted(len(found.tasks), 'task')}, {counted(examples, 'example')} to train on, {total:,} supervised tokens."
        ),
        "model": f"{parameters:,} parameters.",
        "memory": f"{_BYTES * parameters / 2**30:,.0f} GiB",
        "bad": f"{counted(found.bad_rows, 'row')} could not be read and would stop a run; mend or leave them out.",
        "lengths": (
            f"All examples fit: the longest has {lengths['longest']:,}."
            if lengths["longest"] < longest
            else f"99 % of the examples have {lengths['most']:,} at most; of longer ones the middle of the prompt is cut."
        ),
        "targets": _of_targets(found),
        "rate": f"Usual for {kind}.",
        "batch": f"Examples a step: about {steps:,} steps within the budget.",
        "arms": (
            ["The budget is paid once for each of them. Take a line out, or add any mixture of the README by its name."]
            if several
            else ["There is one task here, and so nothing to mix: add a second file, and its tasks can be compared."]
        ),
    }


def _of_targets(found: Found) -> list[str]:
    block = found.blocks.get("targets", {})
    lines = []
    if "train" in block:
        lines.append(
            f"Half of its examples are for measuring; the other half may be trained on, {EPOCHS} times at most."
        )
    few = [
        f"{_plain(name)} ({size['examples'] + size['held_out']:,})"
        for name, size in found.tasks.items()
        if name in found.targets and size["examples"] + size["held_out"] < _FEW
    ]
    if few:
        lines.append(
            f"Fewer than about {_FEW} examples are hard to steer by: {', '.join(few)}. See whether upsample is as good."
        )
    return lines


def _table(found: Found) -> list[str]:
    """Return a line a task, the largest first, and a line a file that has columns."""
    order = sorted(found.tasks, key=lambda name: -found.tasks[name]["supervised"])
    width = max(len(_plain(name)) for name in order[:_SHOWN])
    lines = [f"{'task'.ljust(width)}  examples  to validate  supervised  processed"]
    for name in order[:_SHOWN]:
        size = found.tasks[name]
        lines.append(
            f"{_plain(name).ljust(width)}  {size['examples']:>8,}  {size['held_out']:>11,}  {size['supervised']:>10,}  "
            f"{size['processed']:>9,}"
        )
    if len(order) > _SHOWN:
        lines.append(f"and {len(order) - _SHOWN:,} more")
    shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for file in found.files:
        unread = tuple(name for name in file.fields if name not in file.read)
        shapes.setdefault((file.read, unread), []).append(Path(file.file).name)
    for (read, unread), names in shapes.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        not_read = f" (not {', '.join(map(_plain, unread))})" if unread else ""
        lines.append(f"read: {', '.join(map(_plain, read))}{not_read}, of {', '.join(map(_plain, names[:3]))}{more}")
    return lines


def _plain(text: str) -> str:
    """Return the text on one line without characters that a comment cannot hold."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _quoted(name: str) -> str:
    return f'"{name}"' if re.search(r"\s", name) else name


def _accelerator() -> bool:
    import torch

    return bool(torch.accelerator.is_available())
