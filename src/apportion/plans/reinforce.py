"""Reinforcement as a run: from a finished run and problems to a model that answers within budgets of thinking."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import nn

import apportion
from apportion._errors import ApportionError
from apportion._ranks import world
from apportion.budget import ACCOUNTS, Budget, Ledger
from apportion.models import KINDS
from apportion.plans.arguments import checked, training_arguments
from apportion.plans.build import load_data
from apportion.plans.problems import Problems, problems_of
from apportion.plans.recipe import NEWEST
from apportion.plans.reinforcing import ReinforceRecipe
from apportion.plans.training import device_name
from apportion.reports import write_report
from apportion.runs import RunFolder, read_run
from apportion.runs.atomic import atomic_write_text, is_write_error, write_error
from apportion.runs.curve import FILE
from apportion.runs.reinforce import ROLLOUTS, BudgetCurve, Standing
from apportion.runs.schema import dump_file
from apportion.training.checkpoint import load_state, newest_checkpoint
from apportion.training.part import Kept, Origin, Parts
from apportion.training.recorder import Show
from apportion.training.rl.recorder import RlRecorder
from apportion.training.rl.rolling import Roller
from apportion.training.rl.rollouts import Rollouts
from apportion.training.sampler import TaskSampler

if TYPE_CHECKING:
    from trl import GRPOConfig

    from apportion.training.rl.trainer import Reinforcer

# TRL's trainer has joints that are its own business, and move: tests/training/rl/test_trl.py holds what is leaned on.
TRL = (1, 16)


class Reinforcing:
    """Rolls out and trains within the budget, and leaves model, history, roll-outs, curve, ledger and summary.

    Args:
        recipe: What to train.
        out: The run folder.

    Raises:
        ApportionError: A start, tasks, budget or model that do not go together.

    Attributes:
        ledger: The run's.
        problems: What is trained on, and measured on.
        rollouts: What a step is, and what it takes.
        summary: Of the finished run.
    """

    def __init__(self, recipe: ReinforceRecipe, out: Path) -> None:
        self.recipe, self._out = recipe, out
        inner = recipe.inner()
        self._inner = inner
        assert recipe.thinking is not None, "a parsed recipe has the start's tags"
        self._tags, self._data = recipe.thinking, load_data(inner)
        ids = self._tags.ids(self._data.tokenizer)
        # A run of reinforcement names no kind: what it trained is a causal model.
        kind = KINDS.build(read_run(recipe.start).recipe.get("kind", "causal"), "kind")
        if not kind.answers:
            raise kind.refusal("Reinforcement")
        self.model: Any = kind.trained(recipe.start / "model")
        _check_attention(self.model)
        spec = recipe.rl
        positions = int(getattr(self.model.config, "max_position_embeddings", None) or 2**31)
        longest = max(spec.budgets[-1], spec.measures[-1])
        room = positions - longest - len(ids.forced) - spec.answer
        if room < 1:
            raise ApportionError(
                f"'rl.budgets' and 'rl.measured' go up to {longest:,} tokens, 'rl.answer' is {spec.answer}: the model has "
                f"{positions:,} positions, which leaves none for a problem."
            )
        self.problems: Problems = problems_of(inner, self._data, self._tags, ids, room)
        method, sizes = inner.method(), self._data.sizes
        self._names = sizes.names
        counts = [len(found) for found in self.problems.train]
        sampler = TaskSampler(
            counts,
            [np.ones(count, np.int64) for count in counts],
            seed=recipe.seed,
            draws=method.draws,
            max_epochs=method.max_epochs,
        )
        self.ledger = Ledger(Budget.parse(recipe.budget, 0))
        self.rollouts = Rollouts(
            Roller(self._data.tokenizer, kind.prices(self.model), self._tags, ids, spec),
            self.problems.train,
            self.problems.measured,
            sampler=sampler,
            p=method.proportions(method.init(sizes)).numpy(),
            ledger=self.ledger,
            seed=recipe.seed,
        )
        self.summary: dict[str, Any] = {}

    def check(self) -> None:
        """Refuse a budget that does not hold a single step at full length, arguments that do not fit, and another TRL."""
        _check_trl()
        self._arguments()
        if not self.rollouts.affords():
            step = self.rollouts.step_price
            takes = f"{step.generated:,} generated tokens"
            if self.ledger.budget.unit == "flops":
                takes = f"{step.generate + step.train:.3g} FLOPs, and the last measurement "
                takes += f"{self.rollouts.measure_price.generate:.3g}"
            raise ApportionError(
                f"The budget of {self.ledger.budget} does not hold one step at full length, which takes {takes}: "
                "raise it, or lower 'rl.prompts', 'rl.rollouts', 'rl.summaries' or the largest of 'rl.budgets'."
            )

    @property
    def steps(self) -> int:
        """How many steps the budget holds where every roll-out is as long as it may be."""
        step, budget = self.rollouts.step_price, self.ledger.budget
        if budget.unit == "generated":
            return int(budget.limit // step.generated)
        left = budget.limit - self.rollouts.measure_price.generate
        return max(int(left // (step.generate + step.train)), 0)

    def spending(self) -> dict[str, dict[str, float]]:
        """Return the most that each account is charged, ``generated`` tokens and ``flops``."""
        step, once, steps = self.rollouts.step_price, self.rollouts.measure_price, self.steps
        times = min(math.ceil(1 / self.recipe.every - 1e-9), steps) + 1
        return {
            "generate": {"generated": steps * step.generated, "flops": steps * step.generate},
            "train": {"generated": 0, "flops": steps * step.train},
            "validation": {"generated": times * once.generated, "flops": times * once.generate},
        }

    def run(self, folder: RunFolder, show: Show | None) -> None:
        """Train, from the newest checkpoint on where there is one.

        Args:
            folder: The run's.
            show: Told of every record.

        Raises:
            ApportionError: A checkpoint that the run cannot go on from, or a disk that is full.
        """
        checkpoint = newest_checkpoint(folder.checkpoints_dir) if folder.resumed else None
        if folder.resumed:
            lines = load_state(checkpoint)["recorder"]["lines"] if checkpoint else {}
            for name in ("history.jsonl", ROLLOUTS):
                folder.truncate_history(lines.get(name, 0), name)
        recorder = RlRecorder(
            self.rollouts,
            every=self.recipe.every,
            ledger=self.ledger,
            tasks=self._names,
            append=lambda name, record: folder.append_history(record, name),
            show=show,
        )
        trainer = self._trainer(recorder)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        model = trainer.accelerator.unwrap_model(trainer.model)
        self.summary = self._summary(recorder, trainer.args.device)
        try:
            trainer.save_model(str(folder.path / "model"), _internal_call=True)
        except Exception as error:
            if not is_write_error(error):
                raise
            raise write_error(folder.path / "model", error) from None
        self.model = model
        self._close(folder, recorder)

    def _arguments(self) -> GRPOConfig:
        from trl import GRPOConfig

        spec, ids = self.recipe.rl, self.rollouts.roller.ids
        values = {
            **checked(self.recipe.training),
            "per_device_train_batch_size": spec.prompts * spec.rollouts,
            "num_generations": spec.rollouts,
            "max_completion_length": spec.budgets[-1] + len(ids.forced) + spec.answer,
            "temperature": spec.temperature,
            "loss_type": "dr_grpo",
            "scale_rewards": "none",
            "beta": 0.0,
            # The library's default; it takes a model that was loaded for training out of it.
            "gradient_checkpointing": bool(self.recipe.training.get("gradient_checkpointing", False)),
            "bf16": bool(self.recipe.training.get("bf16", False)),
        }
        args = training_arguments(values, self.recipe.seed, self._out, GRPOConfig)
        args.save_total_limit = NEWEST
        return args

    def _trainer(self, recorder: RlRecorder) -> Reinforcer:
        from apportion.training.rl.trainer import Reinforcer

        parts = Parts(
            [
                Origin(self._data.tasks.fingerprint),
                Kept("ledger", self.ledger),
                Kept("sampler", self.rollouts.sampler),
                recorder,
            ]
        )
        return Reinforcer(
            self.model,
            self._arguments(),
            self._data.tokenizer,
            roll=self.rollouts.roll,
            prices=self.rollouts.roller.prices,
            ledger=self.ledger,
            parts=parts,
            recorder=recorder,
            checkpoints=self._out / "checkpoints",
        )

    def _summary(self, recorder: RlRecorder, device: torch.device) -> dict[str, Any]:
        return {
            "kind": "reinforce",
            "method": self.recipe.rl.type,
            "name": self.recipe.rl.title,
            "seed": self.recipe.seed,
            "budget": asdict(self.ledger.budget),
            "spent": {name: asdict(self.ledger.spent(name)) for name in ACCOUNTS},
            "first": _standing(recorder.first),
            "final": _standing(recorder.final),
            "generated": self.ledger.spent("generate").generated,
            "steps": recorder.step,
            "drawn": dict(zip(self._names, self.rollouts.sampler.drawn_examples.tolist(), strict=True)),
            "seconds": round(recorder.seconds, 3),
            "device": device_name(device),
            "versions": {
                "apportion": apportion.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "trl": importlib.metadata.version("trl"),
            },
            "fingerprint": self._data.tasks.fingerprint,
        }

    def _close(self, folder: RunFolder, recorder: RlRecorder) -> None:
        measured = {"before": recorder.first, "after": recorder.final}
        cells: list[dict[str, Any]] = []
        for name, curve in measured.items():
            assert curve is not None, "a run is measured before its first step and after its last"
            columns = (curve["budgets"], curve["accuracy"], curve["error"], curve["used"], curve["forced"])
            cells += [
                {"name": name, "thinking": budget, "score": score, "error": error, "used": used, "forced": forced}
                for budget, score, error, used, forced in zip(*columns, strict=True)
            ]
        record = {
            "settings": {"model": str(folder.path), "metric": "exact", "prompts": len(self.problems.measured)},
            "device": self.summary["device"],
            "cells": cells,
            "area": {name: curve["area"] for name, curve in measured.items() if curve is not None},
        }
        atomic_write_text(folder.path / FILE, dump_file(record))
        folder.write_ledger(self.ledger.as_dict())
        folder.write_summary(self.summary)


def _standing(curve: BudgetCurve | None) -> Standing:
    """Return a measurement by budget, as a summary has it."""
    assert curve is not None, "a run is measured before its first step and after its last"
    names = [str(budget) for budget in curve["budgets"]]
    return {
        "accuracy": dict(zip(names, curve["accuracy"], strict=True)),
        "used": dict(zip(names, curve["used"], strict=True)),
        "forced": dict(zip(names, curve["forced"], strict=True)),
        "area": curve["area"],
    }


def _check_attention(model: nn.Module) -> None:
    """Refuse a model whose attention would not take a mask of ours: several answers stand behind one thinking."""
    config: Any = model.config
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        other = min(kinds - {"full_attention"})
        raise ApportionError(
            f"The start's model has layers of '{other}': reinforcement takes one with full attention in every layer."
        )


def _check_trl() -> None:
    wanted = f"reinforcement needs TRL {'.'.join(map(str, TRL))}: pip install 'apportion[rl]'"
    try:
        there = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        raise ApportionError(f"TRL is not installed, and {wanted}.") from None
    if tuple(there.split(".")[:2]) != tuple(map(str, TRL)):
        raise ApportionError(f"TRL {there} is installed, and {wanted}.")


@dataclass(frozen=True, repr=False)
class Reinforced:
    """A finished run of reinforcement: its folder and its summary."""

    path: Path
    summary: Mapping[str, Any]

    def report(self) -> Path:
        """Write ``report.html`` into the run folder and return its path."""
        return write_report(self.path)

    def __repr__(self) -> str:
        first, final = (standing["area"] for standing in (self.summary["first"], self.summary["final"]))
        said = f"{self.summary['name']}, seed {self.summary['seed']}, {self.summary['generated']:,} generated tokens"
        return f"Reinforced('{self.path}': {said}, area {first:.3f} before and {final:.3f} after)"


def plan_reinforcing(recipe: ReinforceRecipe) -> dict[str, Any]:
    """Price a recipe at full length, as plain values; rolls out nothing.

    Raises:
        ApportionError: As `Reinforcing`.
    """
    stage = Reinforcing(recipe, Path("plan"))
    stage.check()
    spec = recipe.rl
    return {
        "budget": asdict(stage.ledger.budget),
        "steps": stage.steps,
        "roll_outs": spec.prompts * spec.rollouts,
        "answers": spec.prompts * spec.rollouts * spec.summaries * len(spec.budgets),
        "step": asdict(stage.rollouts.step_price),
        "accounts": stage.spending(),
    }


def reinforce_recipe(recipe: ReinforceRecipe, out: str | Path, show: Show | None = None) -> Reinforced:
    """Run a recipe of reinforcement; goes on where it was stopped if the folder holds an unfinished run of it.

    Args:
        recipe: What to run.
        out: The run folder.
        show: Told of every record.

    Raises:
        ApportionError: Anything wrong with recipe, start, tasks or folder; before training starts nothing is written.
    """
    _check_trl()
    if world() > 1:
        raise ApportionError("Reinforcement runs in one process: start it without torchrun or 'accelerate launch'.")
    recipe.tasks.keep_out(Path(out))
    RunFolder.check(out, recipe.resolved())
    stage = Reinforcing(recipe, Path(out))
    stage.check()
    with RunFolder.create(out, recipe.resolved()) as folder:
        stage.run(folder, show)
    return Reinforced(Path(out), stage.summary)
