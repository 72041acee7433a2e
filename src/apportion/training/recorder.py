"""The history of a run: losses, mixture and spending at a cadence given in shares of the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from apportion._errors import ApportionError
from apportion._ranks import summed
from apportion.budget import ACCOUNTS, Ledger
from apportion.budget.cadence import next_due
from apportion.budget.prices import Prices
from apportion.objectives.worst import REPORT_TAU, smooth_worst
from apportion.signals._records import Moment
from apportion.signals.losses import example_sums, means_by_task
from apportion.tasks.batches import Batch
from apportion.training.part import Done, Part

RECORD_EVERY = 0.01


# Shown each record as it is made, with the share of the budget spent.
Show = Callable[[dict[str, Any], float], None]
Log = Callable[[dict[str, float]], None]


def effective_tasks(p: Tensor) -> float:
    """Return n_eff = exp(H(p)), between 1 and T."""
    positive = p[p > 0]
    return float(torch.exp(-(positive * positive.log()).sum()))


class Recorder(Part):
    """Validates every ``every`` of the budget, records every hundredth of it.

    Args:
        names: Names of what is validated.
        tasks: Those of them that are drawn from, in the mixture's order; all of them where None.
        judged: The tasks that the macro loss is the mean of: those that are drawn from, unless a selection leaves fewer.
        importance: Of each target by name; empty where the recipe names none.
        batches: The reporting half of the validation splits; charged to `validation` at each measurement.
        every: Share of the budget between validations.
        ledger: What was spent; validation is charged to it.
        prices: Of the model's passes.
        affords: Whether a measurement of that many FLOPs fits the budget; one more must fit, to close with.
        proportions: Returns the mixture now.
        weights: Returns what is to be recorded of the weights since it was last asked.
        append: Writes one record to the history.
        show: Told of every record.
        benchmarks: Asks the model what is downstream, charges it, and returns scores by name; None in all processes but one.
        benchmarks_every: Share of the budget between that, from the untrained model on; None for never.

    Attributes:
        final, best: The last validation, and the one with the lowest loss: of the targets where there are any, else macro.
        measured: The last validation's ``nll`` and ``supervised`` tokens by example, in the order of ``batches``.
        due: Whether a validation was due after the last step, affordable or not; a checkpoint follows then.
        validated: Whether there was one.
        log: Told the numbers of every record, by names for trackers; a trainer's own, which carries the recorder.
    """

    name = "recorder"

    def __init__(  # noqa: PLR0913 - the joint of history, ledger and validation
        self,
        names: Sequence[str],
        batches: Sequence[Batch],
        *,
        tasks: Sequence[str] | None = None,
        judged: Sequence[str] | None = None,
        importance: Mapping[str, float] | None = None,
        every: float,
        ledger: Ledger,
        prices: Prices,
        affords: Callable[[float], bool],
        proportions: Callable[[], Tensor],
        append: Callable[[dict[str, Any]], None],
        weights: Callable[[], dict[str, Any]] = dict,
        show: Show | None = None,
        benchmarks: Callable[[nn.Module], dict[str, float]] | None = None,
        benchmarks_every: float | None = None,
    ) -> None:
        self._names, self._batches, self._every = list(names), list(batches), every
        self._tasks, self._importance = list(names if tasks is None else tasks), dict(importance or {})
        self._judged = self._tasks if judged is None else list(judged)
        self._places = [self._names.index(name) for name in self._judged]
        self._ledger, self._affords = ledger, affords
        self._proportions, self._weights = proportions, weights
        self._append, self._show = append, show
        self._benchmarks, self._benchmarks_every = benchmarks, benchmarks_every
        self.validation_flops = sum(prices.forward(b.work) for b in self._batches)
        self.step = -1
        self.due = self.validated = False
        self.log: Log | None = None
        self.records = 0
        self.best: dict[str, Any] = {}
        self.final: dict[str, Any] = {}
        self.measured: dict[str, list[float]] = {"nll": [], "supervised": []}
        self._next_record = self._next_validation = self._next_benchmarks = 0.0
        self._loss: Tensor | float = 0.0
        self._loss_steps = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def before_step(self, moment: Moment) -> None:
        """Record the untrained model, unless that was long done."""
        if self.records == 0:
            self._advance(moment.model, 0, 0.0)

    def add_loss(self, loss: Tensor) -> None:
        """Add a micro-batch's share of the step's loss; stays on the device, and with this rank, until recorded."""
        self._loss = self._loss + loss.detach().double()

    def after_step(self, done: Done) -> None:
        """Validate and record, where that is due."""
        self._advance(done.model, done.step, done.lr)

    def _advance(self, model: nn.Module, step: int, lr: float) -> None:
        self.step, self.due, self.validated = step, False, False
        self._loss_steps += step > 0
        progress = self._ledger.progress
        if progress < self._next_record:
            return
        self._next_record = next_due(progress, RECORD_EVERY)
        self.due = progress >= self._next_validation
        self.validated = self.due and self._affords(2 * self.validation_flops)
        if self.due:
            self._next_validation = next_due(progress, self._every)
        self._record(model, step, lr, self.validated)

    def finish(self, model: nn.Module) -> None:
        """Validate and record the finished model, unless its last record already did."""
        if self.final.get("step") != self.step:
            self._record(model, self.step, 0.0, True)

    def _record(self, model: nn.Module, step: int, lr: float, validates: bool) -> None:
        losses = self._validate(model) if validates else None
        scores = self._asked(model)
        p = self._proportions()
        record: dict[str, Any] = {
            "step": step,
            "spent": {name: asdict(self._ledger.spent(name)) for name in ACCOUNTS if self._ledger.spent(name).flops},
            "seconds": round(self.seconds, 3),
            **self._mean_loss(step),
            "lr": lr,
            "mixture": dict(zip(self._tasks, p.tolist(), strict=True)),
            "n_eff": effective_tasks(p),
            **self._weights(),
        }
        if losses is not None:
            measured = self._measured(losses)
            found = dict(zip(self._names, losses.tolist(), strict=True))
            record |= {"validation": {name: found[name] for name in self._judged}, **measured}
            if self._importance:
                record["targets"] = {name: found[name] for name in self._importance}
            self._keep(step, record, measured)
        if scores:
            record["evaluation"] = scores
        self._append(record)
        self.records += 1
        if self.log is not None:
            self.log(_flat(record))
        if self._show is not None:
            self._show(record, self._ledger.progress)

    def _asked(self, model: nn.Module) -> dict[str, float]:
        """Return the scores of the benchmarks, where they are due; at the end they are no part of training."""
        every, progress = self._benchmarks_every, self._ledger.progress
        if every is None or not self._next_benchmarks <= progress < 1:
            return {}
        self._next_benchmarks = next_due(progress, every)
        return self._benchmarks(model) if self._benchmarks is not None else {}

    def _measured(self, losses: Tensor) -> dict[str, float | None]:
        """Return what one number says of the losses (N,): over the tasks, and over targets and the tasks that are none."""
        tasks = losses[self._places]
        measured: dict[str, float | None] = {
            "macro": float(tasks.mean()),
            "worst": float(tasks.max()),
            "objective": float(smooth_worst(tasks, REPORT_TAU)),
        }
        if self._importance:
            weights = torch.tensor([self._importance.get(name, 0.0) for name in self._names]).to(losses)
            others = tasks[weights[self._places] == 0]
            measured["target"] = float((weights * losses).sum() / weights.sum())
            measured["others"] = float(others.mean()) if len(others) else None
        return measured

    def _validate(self, model: nn.Module) -> Tensor:
        nll, supervised = example_sums(model, self._batches, next(model.parameters()).device)
        losses = means_by_task(nll, supervised, self._batches, len(self._names))
        self.measured = {"nll": summed(nll).tolist(), "supervised": summed(supervised).tolist()}
        self._ledger.charge(
            "validation",
            supervised=sum(b.supervised for b in self._batches),
            processed=sum(b.processed for b in self._batches),
            padded=sum(b.padded for b in self._batches),
            flops=self.validation_flops,
        )
        if not torch.isfinite(losses).all():
            raise _diverged("validation", self.step)
        return losses

    def _mean_loss(self, step: int) -> dict[str, float]:
        if not self._loss_steps:
            return {}  # no step since the last record, or none yet
        loss = float(summed(torch.as_tensor(self._loss, dtype=torch.float64))) / self._loss_steps
        self._loss, self._loss_steps = 0.0, 0
        if not math.isfinite(loss):
            raise _diverged("training", step)
        return {"loss": loss}

    def _keep(self, step: int, record: dict[str, Any], measured: dict[str, float | None]) -> None:
        self.final = {"step": step, **measured, "validation": record["validation"]}
        if self._importance:
            self.final["targets"] = record["targets"]
        judged = "target" if self._importance else "macro"
        if not self.best or self.final[judged] < self.best[judged]:
            self.best = {"step": step, **measured}

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the history, as plain numbers."""
        return {
            "step": self.step,
            "records": self.records,
            "best": self.best,
            "final": self.final,
            "measured": self.measured,
            "next_record": self._next_record,
            "next_validation": self._next_validation,
            "next_benchmarks": self._next_benchmarks,
            "loss": float(self._loss),
            "loss_steps": int(self._loss_steps),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned; the clock goes on from there."""
        self.step, self.records = state["step"], state["records"]
        self.best, self.final, self.measured = state["best"], state["final"], state["measured"]
        self._next_record, self._next_validation = state["next_record"], state["next_validation"]
        self._next_benchmarks = state["next_benchmarks"]
        self._loss, self._loss_steps = state["loss"], state["loss_steps"]
        self._seconds_before, self._started = state["seconds"], time.monotonic()


def _diverged(what: str, step: int) -> ApportionError:
    return ApportionError(
        f"The {what} loss is no longer a number at step {step}: lower 'training.learning_rate', "
        "or train without half precision."
    )


def _flat(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a record by the names that trackers show them under."""
    numbers = ("loss", "lr", "n_eff", "macro", "worst", "objective", "target", "others")
    logs = {key: record[key] for key in numbers if record.get(key) is not None}
    logs |= {f"mixture/{name}": share for name, share in record["mixture"].items()}
    logs |= {f"weights/{name}": number for name, number in record.get("weights", {}).items()}
    logs |= {f"validation/{name}": loss for name, loss in record.get("validation", {}).items()}
    logs |= {f"targets/{name}": loss for name, loss in record.get("targets", {}).items()}
    logs |= {f"evaluation/{name}": score for name, score in record.get("evaluation", {}).items()}
    for account, spent in record["spent"].items():
        logs |= {f"spent/{account}/{column}": spent[column] for column in ("supervised", "flops")}
    return logs
