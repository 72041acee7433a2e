"""One recipe, one run: train it within its budget and leave a run folder behind."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel
from torch import nn
from transformers import set_seed

import apportion
from apportion._errors import ApportionError
from apportion._ranks import leave_at_exit, one_first, rank, told, wait, world
from apportion.budget import ACCOUNTS, Ledger
from apportion.mixtures._mixture import Mixture
from apportion.models.loading import build_model, parameters, quietly
from apportion.models.sizes import check_memory
from apportion.models.tagi.prices import TagiPrices
from apportion.models.tagi.tagi import Tagi
from apportion.plans.build import Data, Setup, assemble, load_data, make_model, make_trainer, prices_of, reported
from apportion.plans.fit import check_fit
from apportion.plans.hypernet import BASE, save_base, teacher_factors
from apportion.plans.recipe import Recipe, parse_recipe
from apportion.plans.spending import with_cadence
from apportion.plans.teachers import charge_teacher, folders_of, teacher_recipe
from apportion.runs import RunFolder
from apportion.runs.atomic import is_write_error, write_error
from apportion.runs.uncertainty import of_validation
from apportion.training.checkpoint import load_state, newest_checkpoint
from apportion.training.recorder import Recorder, Show, effective_tasks
from apportion.training.trainer import BudgetTrainer
from apportion.weights._weighting import Weighting


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its summary."""

    path: Path
    summary: Mapping[str, Any]

    def report(self) -> Path:
        """Write ``report.html`` into the run folder and return its path."""
        from apportion.reports import write_report

        return write_report(self.path)


def prepare(recipe: Recipe, out: str | Path) -> tuple[Data, Setup]:
    """Check recipe, folder, data and budget in full, so that a mistake leaves nothing behind; loads no weights.

    Args:
        recipe: What to run.
        out: The run folder.

    Raises:
        ApportionError: Anything wrong with them.
    """
    recipe.tasks.keep_out(Path(out))
    recipe = settled(recipe, out)
    if rank() == 0:
        RunFolder.check(out, recipe.resolved())
    data = _data(recipe, out)
    shapes = make_model(recipe, data, meta=True)
    check_memory(shapes)
    parts = assemble(recipe, data, prices_of(shapes), Path(out))
    check_fit(shapes, data, parts, _ahead(recipe, data, parts, Path(out)))
    return data, parts


def settled(recipe: Recipe, out: str | Path) -> Recipe:
    """Return the recipe as it will be run: what is left to follow from the data is written out.

    Raises:
        ApportionError: Anything wrong with the data, where something does.
    """
    return recipe if recipe.validation.every is not None else with_cadence(recipe, _data(recipe, out))


def _data(recipe: Recipe, out: str | Path) -> Data:
    if world() > 1:
        recipe.arguments(Path(out))  # where the processes find each other
        leave_at_exit()
    with one_first():
        return load_data(recipe)


def _ahead(recipe: Recipe, data: Data, parts: Setup, out: Path) -> float:
    """Check a hypernetwork's LoRA teachers, and return the FLOPs that are spent before its training."""
    if recipe.hypernet is None or not isinstance(parts.prices, TagiPrices):
        return 0.0
    spec, ledger = recipe.hypernet.teachers, Ledger(parts.ledger.budget)
    if spec is not None:
        if spec.run is None and ledger.budget.unit == "flops":
            raise ApportionError(
                "What LoRA teachers will cost is not known before a budget in FLOPs is spent: train them in a run with a "
                "budget in tokens and name it under 'hypernet.teachers.run'."
            )
        for folder, tasks in folders_of(out, spec, data.tasks.names):
            if (folder / "summary.json").exists():
                charge_teacher(ledger, folder)
            else:
                prepare(parse_recipe(teacher_recipe(recipe, recipe.hypernet, spec, tasks, data.tasks.names)), folder)
    return ledger.total_flops + (parts.prices.reading_all() if parts.prices.frozen else 0.0)


def run_recipe(recipe: Recipe, out: str | Path, show: Show | None = None) -> Run:
    """Train one recipe; goes on from the newest checkpoint if the folder holds an unfinished run of it.

    Where several processes were started together, all call this, and rank 0 alone writes and shows. The folder must be one
    that all of them see.

    Args:
        recipe: What to run.
        out: The run folder.
        show: Told of every record.

    Raises:
        ApportionError: Anything wrong with recipe, data, model or folder; before training starts nothing is written.
    """
    recipe = settled(recipe, out)
    data, parts = prepare(recipe, out)
    # Loaded before the folder is made, for the same reason.
    model = make_model(recipe, data)
    folder = RunFolder.create(out, recipe.resolved()) if rank() == 0 else None
    with folder or nullcontext():
        recorder = Recorder(
            data.tasks.names,
            parts.report,
            every=recipe.validation.cadence,
            ledger=parts.ledger,
            prices=parts.prices,
            affords=parts.allowance.affords,
            proportions=lambda: parts.mixture.p,
            append=folder.append_history if folder else lambda record: None,
            weights=parts.weights.summary,
            show=show if folder else None,
        )
        trainer = make_trainer(model, data, parts, recorder, Path(out))
        checkpoint = told(_checkpoint_of(folder) if folder else "")
        if isinstance(model, Tagi):
            _instruct(model, recipe, data, parts, Path(out))
        trainer.train(resume_from_checkpoint=checkpoint or None)
        recorder.finish(trainer.model)
        validation = _validation(recipe, data, recorder)
        summary = _summary(recipe, data, parts, trainer.model, recorder)
        summary["final"] |= of_validation(validation["tasks"], summary["final"]["validation"])
        if folder:
            folder.write_validation(validation)
            _close(folder, recipe, data, parts, trainer, summary)
    wait()
    return Run(Path(out), summary)


def _instruct(model: Tagi, recipe: Recipe, data: Data, parts: Setup, out: Path) -> None:
    """Train the hypernetwork's LoRA teachers, charged to `proxy`, and have all instructions read, charged to `generate`.

    Instructions are read ahead where the base model stays as it is. A resumed run does both again, as far as they are not
    done; its ledger comes from the checkpoint.
    """
    spec = model.spec
    if spec.teachers is not None:
        for folder, tasks in folders_of(out, spec.teachers, data.tasks.names):
            if not (folder / "summary.json").exists():
                run_recipe(parse_recipe(teacher_recipe(recipe, spec, spec.teachers, tasks, data.tasks.names)), folder)
            charge_teacher(parts.ledger, folder)
            factors = teacher_factors(folder / "model")
            model.targets |= {data.tasks.names.index(task): factors for task in tasks}
        set_seed(recipe.seed)  # the teachers drew, or had been trained before: what is drawn next is the same
    if model.frozen and isinstance(parts.prices, TagiPrices) and model.instructions:
        model.read_all()
        tokens = sum(len(ids) for ids in model.instructions)
        parts.ledger.charge("generate", supervised=0, processed=tokens, padded=tokens, flops=parts.prices.reading_all())


def _checkpoint_of(folder: RunFolder) -> str:
    """Return the checkpoint that the run goes on from, its history cut to what that knew; empty for none."""
    if not folder.resumed:
        return ""
    checkpoint = newest_checkpoint(folder.checkpoints_dir)
    folder.truncate_history(load_state(checkpoint)["recorder"]["records"] if checkpoint else 0)
    return str(checkpoint or "")


def _close(
    folder: RunFolder, recipe: Recipe, data: Data, parts: Setup, trainer: BudgetTrainer, summary: Mapping[str, Any]
) -> None:
    """Write model, mixture, ledger and, last, the summary that marks the run finished."""
    try:
        if isinstance(trainer.model, PeftModel) and recipe.model.config is not None:
            _save_beginning(trainer.model, recipe, data, folder.path / "model" / BASE)
        trainer.save_model(str(folder.path / "model"), _internal_call=True)
        if isinstance(trainer.model, Tagi):
            save_base(trainer.model, data.tokenizer, recipe, folder.path / "model")
    except Exception as error:
        if not is_write_error(error):
            raise
        raise write_error(folder.path / "model", error) from None
    folder.write_ledger(parts.ledger.as_dict())
    folder.write_mixture(_mixture(data, parts))
    folder.write_summary(summary)


def _save_beginning(model: PeftModel, recipe: Recipe, data: Data, folder: Path) -> None:
    """Save the from-scratch model that an adapter was trained on, frozen, and name it in the adapter's settings."""
    base: Any = build_model(recipe.model, data.tokenizer, lora=None, seed=recipe.seed)
    with quietly():
        base.save_pretrained(folder)
    data.tokenizer.save_pretrained(folder)
    model.peft_config["default"].base_model_name_or_path = str(folder.absolute())


def _mixture(data: Data, parts: Setup) -> dict[str, Any]:
    names, sampler = data.tasks.names, parts.stream.sampler
    drawn = sampler.drawn_supervised
    columns = {
        "supervised": drawn.tolist(),
        "examples": sampler.drawn_examples.tolist(),
        "epochs": sampler.epochs.tolist(),
        "size": data.sizes.supervised.to(torch.int64).tolist(),
    }
    return {
        "final": dict(zip(names, parts.mixture.p.tolist(), strict=True)),
        "token_averaged": dict(zip(names, (drawn / max(drawn.sum(), 1)).tolist(), strict=True)),
        "tasks": {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(names)},
    }


def _validation(recipe: Recipe, data: Data, recorder: Recorder) -> dict[str, Any]:
    """Return the last validation, example by example, each task's in the order of its ids."""
    found: dict[str, list[tuple[str, float, int]]] = {name: [] for name in data.tasks.names}
    measured = zip(recorder.measured["nll"], recorder.measured["supervised"], strict=True)
    for (task, split, index), (nll, supervised) in zip(reported(recipe, data), measured, strict=True):
        found[data.tasks.names[task]].append((split.ids[index], nll, int(supervised)))
    keys = ("ids", "nll", "supervised")
    tasks = {
        name: {key: [row[column] for row in sorted(rows)] for column, key in enumerate(keys)}
        for name, rows in found.items()
    }
    return {"step": recorder.final["step"], "tasks": tasks}


def _method(block: Mapping[str, Any], method: Mixture | Weighting) -> dict[str, Any]:
    return {"type": block["type"], "plain": method.plain, "advice": dict(method.advice)}


def _summary(recipe: Recipe, data: Data, parts: Setup, model: nn.Module, recorder: Recorder) -> dict[str, Any]:
    return {
        "method": recipe.mixture["type"],
        "methods": {
            "mixture": _method(recipe.mixture, recipe.method()),
            "weights": _method(recipe.weights, recipe.weighting()),
        },
        "seed": recipe.seed,
        "budget": asdict(parts.ledger.budget),
        "spent": {name: asdict(parts.ledger.spent(name)) for name in ACCOUNTS},
        "final": {key: value for key, value in recorder.final.items() if key != "step"},
        "best": recorder.best,
        "n_eff": effective_tasks(parts.mixture.p),
        "seconds": round(recorder.seconds, 3),
        "device": device_name(parts.args.device),
        "versions": {
            "apportion": apportion.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "fingerprint": data.tasks.fingerprint,
        "findings": [*data.findings, *recipe.method().findings()],
        "parameters": dict(parameters(model)),
    }


def device_name(device: torch.device) -> str:
    """Name the device in words, as a result should."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads, {platform.machine()}"
