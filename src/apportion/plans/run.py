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
from safetensors import SafetensorError
from torch import nn

import apportion
from apportion.budget import ACCOUNTS
from apportion.budget.flops import ModelFlops
from apportion.plans.build import Data, Parts, assemble, load_data, make_model
from apportion.plans.fit import check_fit
from apportion.plans.recipe import Recipe
from apportion.runs import RunFolder
from apportion.runs.atomic import write_error
from apportion.signals.ranks import leave_at_exit, one_first, rank, told, wait, world
from apportion.training.checkpoint import load_state, newest_checkpoint
from apportion.training.models import parameters
from apportion.training.recorder import Recorder, Show, effective_tasks
from apportion.training.trainer import BudgetTrainer


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its summary."""

    path: Path
    summary: Mapping[str, Any]

    def report(self) -> Path:
        """Write ``report.html`` into the run folder and return its path."""
        from apportion.reports import write_report

        return write_report(self.path)


def prepare(recipe: Recipe, out: str | Path) -> tuple[Data, Parts]:
    """Check recipe, folder, data and budget in full, so that a mistake leaves nothing behind; loads no weights.

    Args:
        recipe: What to run.
        out: The run folder.

    Raises:
        ApportionError: Anything wrong with them.
    """
    if rank() == 0:
        RunFolder.check(out, recipe.resolved())
    if world() > 1:
        recipe.arguments(Path(out))  # where the processes find each other
        leave_at_exit()
    with one_first():
        data = load_data(recipe)
    shapes = make_model(recipe, data, meta=True)
    parts = assemble(recipe, data, ModelFlops.of(shapes), Path(out))
    check_fit(shapes, data, parts)
    return data, parts


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
    data, parts = prepare(recipe, out)
    # Loaded before the folder is made, for the same reason.
    model = make_model(recipe, data)
    folder = RunFolder.create(out, recipe.resolved()) if rank() == 0 else None
    with folder or nullcontext():
        recorder = Recorder(
            data.tasks.names,
            parts.report,
            every=recipe.validation.every,
            ledger=parts.ledger,
            flops=parts.flops,
            affords=parts.allowance.affords,
            proportions=lambda: parts.steering.p,
            append=folder.append_history if folder else lambda record: None,
            weights=parts.weighing.summary,
            show=show if folder else None,
        )
        trainer = BudgetTrainer(
            model,
            parts.args,
            data.tokenizer,
            stream=parts.stream,
            steering=parts.steering,
            weighing=parts.weighing,
            recorder=recorder,
            ledger=parts.ledger,
            checkpoints=Path(out) / "checkpoints",
        )
        checkpoint = told(_checkpoint_of(folder) if folder else "")
        trainer.train(resume_from_checkpoint=checkpoint or None)
        recorder.finish(trainer.model)
        summary = _summary(recipe, data, parts, trainer.model, recorder)
        if folder:
            _close(folder, data, parts, trainer, summary)
    wait()
    return Run(Path(out), summary)


def _checkpoint_of(folder: RunFolder) -> str:
    """Return the checkpoint that the run goes on from, its history cut to what that knew; empty for none."""
    if not folder.resumed:
        return ""
    checkpoint = newest_checkpoint(folder.checkpoints_dir)
    folder.truncate_history(load_state(checkpoint)["recorder"]["records"] if checkpoint else 0)
    return str(checkpoint or "")


def _close(folder: RunFolder, data: Data, parts: Parts, trainer: BudgetTrainer, summary: Mapping[str, Any]) -> None:
    """Write model, mixture, ledger and, last, the summary that marks the run finished."""
    try:
        trainer.save_model(str(folder.path / "model"), _internal_call=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise write_error(folder.path / "model", error) from None
    folder.write_ledger(parts.ledger.as_dict())
    folder.write_mixture(_mixture(data, parts))
    folder.write_summary(summary)


def _mixture(data: Data, parts: Parts) -> dict[str, Any]:
    names, sampler = data.tasks.names, parts.stream.sampler
    drawn = sampler.drawn_supervised
    columns = {
        "supervised": drawn.tolist(),
        "examples": sampler.drawn_examples.tolist(),
        "epochs": sampler.epochs.tolist(),
        "size": data.sizes.supervised.to(torch.int64).tolist(),
    }
    return {
        "final": dict(zip(names, parts.steering.p.tolist(), strict=True)),
        "token_averaged": dict(zip(names, (drawn / max(drawn.sum(), 1)).tolist(), strict=True)),
        "tasks": {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(names)},
    }


def _summary(recipe: Recipe, data: Data, parts: Parts, model: nn.Module, recorder: Recorder) -> dict[str, Any]:
    return {
        "method": recipe.mixture["type"],
        "seed": recipe.seed,
        "budget": asdict(parts.ledger.budget),
        "spent": {name: asdict(parts.ledger.spent(name)) for name in ACCOUNTS},
        "final": {key: value for key, value in recorder.final.items() if key != "step"},
        "best": recorder.best,
        "n_eff": effective_tasks(parts.steering.p),
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
        "findings": list(data.findings),
        "parameters": dict(parameters(model)),
    }


def device_name(device: torch.device) -> str:
    """Name the device in words, as a result should."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads, {platform.machine()}"
