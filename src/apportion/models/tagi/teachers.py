"""LoRA teachers of a hypernetwork: ordinary runs, one a task or category, and what is done with their adapters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from apportion._errors import ApportionError, nearest
from apportion.models._kind import Asked, Child
from apportion.models.loading import model_config
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.kind import Tagi, TeachersSpec
from apportion.models.tagi.slots import Factors
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
            raise ApportionError(f"Unknown task '{task}' under 'kind.teachers.groups'{nearest(task, names)}.")
        found.setdefault(group, []).append(task)
    return found


def teachers_of(
    spec: Tagi, teachers: TeachersSpec, asked: Asked, names: tuple[str, ...], out: Path
) -> tuple[Child, ...]:
    """Return each teacher's run, inside the hypernetwork's folder or where ``run`` says.

    Raises:
        ApportionError: ``run`` has not all of these teachers, or the base cannot be a teacher's.
    """
    if model_config(asked.model, None).is_encoder_decoder:
        raise ApportionError(
            "LoRA teachers are ordinary runs, which train decoder-only models: leave out 'kind.teachers', or give "
            "another 'model'."
        )
    found = []
    for number, (group, tasks) in enumerate(groups_of(teachers, names).items()):
        place = expand(teachers.run) if teachers.run else out
        folder = place / FOLDER / f"{number}-{re.sub(r'[^a-zA-Z0-9_.-]', '_', group)}"
        if teachers.run and not (folder / "summary.json").is_file():
            raise ApportionError(f"'kind.teachers.run' has no finished teacher for '{group}': {folder} is not there.")
        values = None if teachers.run else teacher_values(spec, teachers, asked, tasks, names)
        found.append(Child(folder, values, tuple(tasks)))
    return tuple(found)


def teacher_values(
    spec: Tagi, teachers: TeachersSpec, asked: Asked, tasks: list[str], names: tuple[str, ...]
) -> dict[str, Any]:
    """Return the recipe of one teacher: LoRA of the adapters' rank and modules on the same base and tasks.

    Its tasks are split as among all of the hypernetwork's, ``names``: it trains on nothing that these are validated on.

    A teacher of one task sees what its student sees, the inputs alone; one of a category, whose tasks its inputs do not
    tell apart, reads the instruction in the prompt.
    """
    plain = asked.resolved()
    config = model_config(asked.model, None)
    prompts = {"instruction": "apart" if len(tasks) == 1 else "prompt"}
    return {
        **{
            key: value
            for key, value in plain.items()
            if key not in ("kind", "targets", "objective", "weights", "mixture")
        },
        "lora": {"r": spec.r, "alpha": spec.alpha, "target_modules": spec.modules_of(config)},
        "tasks": {**plain["tasks"], "names": tasks, "split_with": list(names), **prompts},
        "budget": teachers.budget,
        "training": {**plain["training"], "learning_rate": teachers.learning_rate},
        "validation": {**plain["validation"], "every": "50%"},
    }


def aim(model: TagiModel, children: Sequence[Child], names: tuple[str, ...]) -> None:
    """Set the finished teachers' adapters as what the generated ones aim at, and read instructions that are read once."""
    for child in children:
        factors = teacher_factors(child.folder / "model")
        model.distiller.targets |= {names.index(task): factors for task in child.tasks}
    model.reader.read_all()


def teacher_factors(folder: Path) -> Factors:
    """Return the factors of a PEFT LoRA adapter by slot, its scale folded into B: A (d_in, r), B (r, d_out).

    Raises:
        ApportionError: The folder holds no LoRA adapter.
    """
    try:
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        tensors = load_file(str(folder / "adapter_model.safetensors"))
    except (OSError, ValueError) as error:
        raise ApportionError(f"The folder '{folder}' holds no LoRA adapter: {error}.") from None
    scale = settings["lora_alpha"] / settings["r"]
    found = {}
    for key, value in tensors.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            found[name] = (value.T.contiguous(), scale * tensors[key.replace("lora_A", "lora_B")].T.contiguous())
    return found
