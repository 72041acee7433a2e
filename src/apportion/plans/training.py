"""The stage of training: from a recipe's data and model to the files of its run folder."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

import apportion
from apportion._ranks import told
from apportion.budget import ACCOUNTS, Budget, Ledger
from apportion.budget.prices import Cost
from apportion.exports.card import card
from apportion.mixtures._mixture import Mixture, Outcome
from apportion.models import Child
from apportion.models.loading import parameters
from apportion.plans.build import Data, Setup, assemble, check_flop_epochs, make_model, make_trainer, reported
from apportion.plans.evaluating import Evaluating
from apportion.plans.fit import check_fit
from apportion.plans.recipe import Recipe
from apportion.plans.spending import Expected, expected_spending
from apportion.plans.stages import Costs, Stage
from apportion.runs import RunFolder
from apportion.runs.atomic import atomic_write_text, is_write_error, write_error
from apportion.runs.uncertainty import of_validation
from apportion.tasks.files import expand
from apportion.training.checkpoint import load_state, newest_checkpoint
from apportion.training.recorder import Recorder, Show, effective_tasks
from apportion.training.trainer import BudgetTrainer
from apportion.weights._weighting import Weighting

# Folder of the runs that a mixture asks for, in that of the run.
TRIALS = "trials"
# Trials whose losses a finding names one by one.
MOST_NAMED = 8


class Training(Stage):
    """Trains the recipe's model within its budget, and leaves model, history, ledger and summary in the run folder.

    Args:
        recipe: What to train, settled.
        data: Its tasks.
        out: The run folder.

    Raises:
        ApportionError: A model, budget, method or training argument that does not fit.

    Attributes:
        children: The runs whose results the model's kind takes, finished by the time this stage is run.
        trials: Those whose losses the mixture is told, by the names it asked for them by; finished by then too.
        shapes: The model on the meta device.
        evaluating: The stage of its benchmarks, which is run after it; None where the recipe names none.
        setup: What its trainer is made of, and its price follows from.
        expected: What it was last priced at.
        summary: Of the finished run.
        selected: What a selection kept, in numbers; None without one.
        waited: Seconds that a selection took in this process, its warm-up included.
    """

    name = "train"

    def __init__(self, recipe: Recipe, data: Data, out: Path) -> None:
        self.recipe, self._out = recipe, out
        self.kind = recipe.model_kind()
        self.shapes = make_model(recipe, data, meta=True)
        self.children = self.kind.children(recipe, data.tasks.names, out)
        self.expected: Expected | None = None
        self.summary: dict[str, Any] = {}
        self.selected: dict[str, Any] | None = None
        self.waited = 0.0
        self.model: nn.Module | None = None
        self.take(data, recipe.selection)
        self.evaluating: Evaluating | None = None
        if recipe.evaluate is not None:
            self.evaluating = Evaluating(
                recipe.evaluate,
                out,
                shapes=self.shapes,
                prices=self.setup.prices,
                tokenizer=data.tokenizer,
                batch_size=self.setup.args.per_device_eval_batch_size,
                model=lambda: self.model if self.model is not None else self.kind.trained(out / "model"),
            )

    def take(self, data: Data, selection: Mapping[str, Any], ledger: Ledger | None = None) -> None:
        """Train on these data; the ledger goes on.

        Args:
            data: The tasks, or what a selection left of them.
            selection: The block by which a trial finds the same examples.
            ledger: The run's; a new one where None.

        Raises:
            ApportionError: A budget or method that does not fit them.
        """
        self.data = data
        self.trials = trials_of(self.recipe, data, self._out, selection)
        self.setup = assemble(self.recipe, data, self.kind.prices(self.shapes), self._out, ledger)
        if self.model is not None:
            for runner in self.setup.runners:
                runner.load()

    @property
    def finished(self) -> bool:
        """Whether its summary is written."""
        return (self._out / "summary.json").exists()

    def check(self, ledger: Ledger) -> None:
        """Refuse a model, data and budget that do not go together."""
        ahead = ledger.total_flops + self.setup.prices.ahead().flops
        check_flop_epochs(self.recipe, self.data, self.setup, ahead)
        check_fit(self.shapes, self.data, self.setup, ahead)

    def price(self, ledger: Ledger) -> Costs:
        """Return what is expected to be spent under the starting mixture."""
        self.expected = expected_spending(self.recipe, self.data, self.setup, ledger.total_flops)
        accounts = dict(self.expected.accounts)
        if self.evaluating is not None and (every := self._evaluated_every):
            # As often as the records come upon it; the end is a stage of its own.
            times = min(math.ceil(1 / every - 1e-9), self.expected.steps + 1)
            accounts["evaluate"] = self.evaluating.full_price().times(times)
        return accounts

    @property
    def _evaluated_every(self) -> float | None:
        return None if self.recipe.evaluate is None else self.recipe.evaluate.every

    def _benchmarks(self, model: nn.Module) -> dict[str, float]:
        assert self.evaluating is not None
        return self.evaluating.during(model, self.setup.ledger)

    def load(self) -> None:
        """Load the model's weights, and what the methods measure with."""
        self.model = make_model(self.recipe, self.data)
        for runner in self.setup.runners:
            runner.load()

    def run(self, ledger: Ledger, folder: RunFolder | None, show: Show | None) -> None:
        """Train, from the newest checkpoint on where there is one; errors are `Stage.run`'s."""
        recipe, data, setup = self.recipe, self.data, self.setup
        outcomes = {name: _outcome(child) for name, child in self.trials.items()}
        if outcomes:
            setup.mixture.tell(outcomes)
        # What the stages before have really spent is known now.
        check_fit(self.shapes, data, setup, setup.prices.ahead().flops)
        ledger.start()
        recorder = Recorder(
            data.held_out.names,
            setup.report,
            tasks=data.tasks.names,
            judged=data.judged,
            importance=data.importance,
            every=recipe.validation.cadence,
            ledger=ledger,
            prices=setup.prices,
            affords=setup.allowance.affords,
            proportions=lambda: setup.p,
            append=folder.append_history if folder else lambda record: None,
            weights=setup.weights.summary,
            show=show if folder else None,
            benchmarks=self._benchmarks if folder else None,
            benchmarks_every=self._evaluated_every,
        )
        assert self.model is not None, "a stage is loaded before it is run"
        trainer = make_trainer(self.model, data, setup, recorder, self._out)
        checkpoint = told(_checkpoint_of(folder) if folder else "")
        self.kind.prepare(self.model, self.children, data.tasks.names)
        _charge(ledger, setup.prices.ahead())
        trainer.train(resume_from_checkpoint=checkpoint or None)
        trainer.keep_last()
        # Without what training put around it, as it will be loaded.
        self.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        validation = _validation(recipe, data, recorder)
        self.summary = _summary(recipe, data, setup, trainer.model, recorder)
        if outcomes:
            self.summary["findings"].append(f"Trials of '{recipe.mixture['type']}' {_tried(outcomes)}.")
        before = (*self.children, *self.trials.values())
        self.summary["seconds"] = round(self.summary["seconds"] + self.waited + sum(map(_seconds, before)), 3)
        if self.selected is not None:
            self.summary["selection"] = self.selected
            if "missing" in self.selected:
                self.summary["findings"].append(
                    f"{self.selected['missing']:,} of the examples that the selection's file keeps are not in these tasks."
                )
            chosen = {"type": recipe.selection["type"], "plain": recipe.chosen().plain, "advice": {}}
            self.summary["methods"]["selection"] = chosen
        self.summary["final"] |= of_validation(
            validation["tasks"], self.summary["final"]["validation"], data.importance
        )
        if folder:
            folder.write_validation(validation)
            _close(folder, recipe, data, setup, trainer, self.summary)


def trials_of(recipe: Recipe, data: Data, out: Path, selection: Mapping[str, Any]) -> dict[str, Child]:
    """Return the runs that the recipe's mixture asks for: the recipe with other blocks and a part of the budget.

    What the run selected is not selected again: ``selection`` says where a trial finds it.
    """
    found = {}
    for name, trial in recipe.method().ask(data.sizes, out / TRIALS).items():
        budget = Budget.parse(recipe.budget, data.pool)
        limit = trial.budget * budget.limit
        part = f"{limit:.4g} FLOPs" if budget.unit == "flops" else f"{max(int(limit), 1)} {budget.unit}"
        key = "total" if budget.unit == "flops" else budget.unit
        values = {
            **recipe.model_copy(update={"evaluate": None}).resolved(),
            **trial.overrides,
            "budget": {key: part},
            "selection": dict(selection),
        }
        values["validation"] = {**values["validation"], "every": 1.0, "half": "steer"}
        found[name] = Child(out / TRIALS / name, values, data.tasks.names)
    return found


def _summary_of(child: Child) -> dict[str, Any]:
    return dict(json.loads((child.folder / "summary.json").read_text("utf-8")))


def _outcome(child: Child) -> Outcome:
    """Return how a finished trial ended."""
    final = _summary_of(child)["final"]
    tasks = json.loads((child.folder / "mixture.json").read_text("utf-8"))["tasks"]
    weights = {name: task["weight"] for name, task in tasks.items() if task.get("weight") is not None}
    return Outcome(float(final.get("target", final["macro"])), weights)


def _tried(outcomes: Mapping[str, Outcome]) -> str:
    """Return the end of the sentence that says at which loss each trial ended, or of many the range."""
    ended = sorted((outcome.loss, name) for name, outcome in outcomes.items())
    if len(ended) <= MOST_NAMED:
        each = ", ".join(f"{name} {outcome.loss:.3f}" for name, outcome in outcomes.items())
        return f"ended at a loss of: {each}"
    (low, best), (high, worst) = ended[0], ended[-1]
    return f"ended at losses from {low:.3f} ({best}) to {high:.3f} ({worst}), {len(ended)} of them"


def _seconds(child: Child) -> float:
    """Return how long a finished child took."""
    return float(_summary_of(child)["seconds"])


def _charge(ledger: Ledger, ahead: Cost) -> None:
    """Charge what was read before training; a resumed run's ledger comes from its checkpoint instead."""
    tokens = int(ahead.processed)
    ledger.charge("generate", supervised=0, processed=tokens, padded=tokens, flops=ahead.flops)


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
        recipe.model_kind().save_beside(trainer.model, recipe, data.tokenizer, folder.path / "model")
        trainer.save_model(str(folder.path / "model"), _internal_call=True)
    except Exception as error:
        if not is_write_error(error):
            raise
        raise write_error(folder.path / "model", error) from None
    ledger, mixture = parts.ledger.as_dict(), _mixture(data, parts)
    # After the model, for PEFT leaves a card of its own beside an adapter.
    atomic_write_text(folder.path / "model" / "README.md", _card(recipe, summary, mixture, ledger))
    folder.write_ledger(ledger)
    folder.write_mixture(mixture)
    folder.write_summary(summary)


def _card(recipe: Recipe, summary: Mapping[str, Any], mixture: Any, ledger: Any) -> str:  # noqa: ANN401
    named = recipe.model.name
    base = None if named is None or expand(named).exists() else named
    return card(recipe.resolved(), summary, mixture, ledger, base, recipe.model_kind().loading(recipe))


def _mixture(data: Data, parts: Setup) -> dict[str, Any]:
    names, sampler = data.tasks.names, parts.stream.sampler
    drawn = sampler.drawn_supervised
    columns: dict[str, Sequence[float | None]] = {
        "supervised": drawn.tolist(),
        "examples": sampler.drawn_examples.tolist(),
        "epochs": sampler.epochs.tolist(),
        "size": data.sizes.supervised.to(torch.int64).tolist(),
    }
    weights = parts.weights.by_task
    if weights is not None:
        columns["weight"] = weights
    return {
        "final": dict(zip(names, parts.p.tolist(), strict=True)),
        "token_averaged": dict(zip(names, (drawn / max(drawn.sum(), 1)).tolist(), strict=True)),
        "tasks": {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(names)},
    }


def _validation(recipe: Recipe, data: Data, recorder: Recorder) -> dict[str, Any]:
    """Return the last validation, example by example, each task's in the order of its ids."""
    names = data.held_out.names
    found: dict[str, list[tuple[str, float, int]]] = {name: [] for name in names}
    measured = zip(recorder.measured["nll"], recorder.measured["supervised"], strict=True)
    for (task, split, index), (nll, supervised) in zip(reported(recipe, data), measured, strict=True):
        found[names[task]].append((split.ids[index], nll, int(supervised)))
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
            "mixture": _method(recipe.mixture, parts.mixture.mixture),
            "weights": _method(recipe.weights, recipe.weighting()),
        },
        "seed": recipe.seed,
        "budget": asdict(parts.ledger.budget),
        "spent": {name: asdict(parts.ledger.spent(name)) for name in ACCOUNTS},
        "final": {key: value for key, value in recorder.final.items() if key != "step"},
        "best": recorder.best,
        "n_eff": effective_tasks(parts.p),
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
        "findings": [*data.findings, *parts.mixture.mixture.findings()],
        "parameters": dict(parameters(model)),
    }


def device_name(device: torch.device) -> str:
    """Name the device in words, as a result should."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads, {platform.machine()}"
