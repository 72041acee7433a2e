"""LoRA teachers of a hypernetwork: ordinary child runs, one a task or category, charged to the run's `proxy` account."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError, nearest
from apportion.budget import Ledger
from apportion.models.loading import model_config
from apportion.models.tagi.spec import HypernetSpec, TeachersSpec
from apportion.plans.recipe import Recipe
from apportion.tasks.files import expand

FOLDER = "teachers"


def groups_of(spec: TeachersSpec, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return each teacher's tasks.

    Raises:
        ApportionError: Categories for a task that is not there; a task without one has no teacher.
    """
    if spec.groups is None:
        return {name: [name] for name in names}
    found: dict[str, list[str]] = {}
    for task, group in spec.groups.items():
        if task not in names:
            raise ApportionError(f"Unknown task '{task}' under 'hypernet.teachers.groups'{nearest(task, names)}.")
        found.setdefault(group, []).append(task)
    return found


def teacher_recipe(
    recipe: Recipe, hypernet: HypernetSpec, spec: TeachersSpec, tasks: list[str], names: tuple[str, ...]
) -> dict[str, Any]:
    """Return the recipe of one teacher: LoRA of the adapters' rank and modules on the same base and tasks.

    Its tasks are split as among all of the hypernetwork's, ``names``: it trains on nothing that these are validated on.

    A teacher of one task sees what its student sees, the inputs alone; one of a category, whose tasks its inputs do not
    tell apart, reads the instruction in the prompt.
    """
    plain = recipe.resolved()
    config = model_config(recipe.model, None)
    prompts = {"instruction": "apart" if len(tasks) == 1 else "prompt"}
    return {
        **{key: value for key, value in plain.items() if key not in ("hypernet", "weights", "mixture")},
        "lora": {"r": hypernet.rank, "alpha": hypernet.alpha, "target_modules": hypernet.modules_of(config)},
        "tasks": {**plain["tasks"], "names": tasks, "split_with": list(names), **prompts},
        "budget": spec.budget,
        "training": {**plain["training"], "learning_rate": spec.learning_rate},
        "validation": {**plain["validation"], "every": "50%"},
    }


def folders_of(out: Path, spec: TeachersSpec, names: tuple[str, ...]) -> list[tuple[Path, list[str]]]:
    """Return the run folder of each teacher, inside the hypernetwork's or where ``run`` says, and its tasks.

    Raises:
        ApportionError: ``run`` has not all of these teachers.
    """
    found = []
    for number, (group, tasks) in enumerate(groups_of(spec, names).items()):
        place = expand(spec.run) if spec.run else out
        folder = place / FOLDER / f"{number}-{re.sub(r'[^a-zA-Z0-9_.-]', '_', group)}"
        if spec.run and not (folder / "summary.json").is_file():
            raise ApportionError(
                f"'hypernet.teachers.run' has no finished teacher for '{group}': {folder} is not there."
            )
        found.append((folder, tasks))
    return found


def charge_teacher(ledger: Ledger, folder: Path) -> None:
    """Charge everything that a teacher's run spent to `proxy`."""
    spent = json.loads((folder / "ledger.json").read_text("utf-8"))["accounts"].values()
    columns = ("supervised", "processed", "padded")
    supervised, processed, padded = (sum(int(account[column]) for account in spent) for column in columns)
    flops = sum(float(account["flops"]) for account in spent)
    ledger.charge("proxy", supervised=supervised, processed=processed, padded=padded, flops=flops)
