"""The history of reinforcement: rewards, lengths and spending, and at a cadence the accuracy at each budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from apportion.budget import ACCOUNTS, Ledger
from apportion.budget.cadence import next_due
from apportion.runs.reinforce import ROLLOUTS, BudgetCurve
from apportion.runs.thinking import area
from apportion.signals._records import Moment
from apportion.training.part import Done, Part
from apportion.training.recorder import RECORD_EVERY, Log, Show
from apportion.training.rl.rollouts import Rollouts
from apportion.training.rl.traces import Trace

# Roll-outs that are kept to be read, of each record.
KEPT = 2


def curve_of(traces: Sequence[Trace], budgets: Sequence[int]) -> BudgetCurve:
    """Return accuracy at each budget against the thinking that it took, of traces with an answer at each.

    ``used`` are tokens of thinking before the cut, on average, and ``forced`` the share whose thinking had not ended there;
    ``area`` is `runs.thinking.area` up to the largest budget.
    """
    right = np.array([[cut[0].right for cut in trace.summaries] for trace in traces], dtype=np.float64)
    used = np.array([[trace.kept(s, budgets) for s in range(len(budgets))] for trace in traces], dtype=np.float64)
    forced = np.array([[s < trace.end or trace.forced for s in range(len(budgets))] for trace in traces])
    accuracy, mean = right.mean(0).tolist(), used.mean(0).tolist()
    several = len(right) > 1
    return {
        "budgets": list(budgets),
        "accuracy": accuracy,
        "error": (right.std(0, ddof=1) / math.sqrt(len(right))).tolist() if several else [None] * len(budgets),
        "used": mean,
        "forced": forced.mean(0).tolist(),
        "area": area(zip(mean, accuracy, strict=True), budgets[-1]),
        "prompts": len(traces),
    }


class RlRecorder(Part):
    """Measures every ``every`` of the budget, records every hundredth of it.

    Args:
        rollouts: The run's.
        every: Share of the budget between measurements.
        ledger: What was spent.
        tasks: Names, in the mixture's order.
        append: Writes a record to a file of the run folder, by its name.
        show: Told of every record.

    Attributes:
        first, final: The curve of the untrained model, and the last one.
        lines: Lines written by file.
    """

    name = "recorder"

    def __init__(
        self,
        rollouts: Rollouts,
        *,
        every: float,
        ledger: Ledger,
        tasks: Sequence[str],
        append: Callable[[str, dict[str, Any]], None],
        show: Show | None = None,
    ) -> None:
        self._rollouts, self._every, self._ledger, self._tasks = rollouts, every, ledger, list(tasks)
        self._append, self._show = append, show
        self.step, self.due = -1, False
        self.log: Log | None = None
        self.lines = {"history.jsonl": 0, ROLLOUTS: 0}
        self.first: BudgetCurve | None = None
        self.final: BudgetCurve | None = None
        self._final_step = -1
        self._next_record = self._next_curve = 0.0
        self._sums = {"reward": 0.0, "correct": 0.0, "thinking": 0.0, "forced": 0.0}
        self._traces = 0
        self._seconds_before, self._started = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def before_step(self, moment: Moment) -> None:
        """Record the model as it starts, unless that was long done."""
        if not self.lines["history.jsonl"]:
            self._advance(moment.model, 0, 0.0)

    def after_step(self, done: Done) -> None:
        """Count the step's roll-outs; measure and record, where that is due."""
        for trace in self._rollouts.rolled.traces:
            worth = [summary.reward for cut in trace.summaries for summary in cut]
            right = [summary.right for summary in trace.summaries[-1]]
            self._sums["reward"] += sum(worth) / len(worth)
            self._sums["correct"] += sum(right) / len(right)
            self._sums["thinking"] += len(trace.thinking)
            self._sums["forced"] += trace.forced
            self._traces += 1
        self._advance(done.model, done.step, done.lr)

    def _advance(self, model: nn.Module, step: int, lr: float) -> None:
        self.step, self.due = step, False
        progress = self._ledger.progress
        if progress < self._next_record:
            return
        self._next_record = next_due(progress, RECORD_EVERY)
        self.due = progress >= self._next_curve
        if self.due:
            self._next_curve = next_due(progress, self._every)
        price = self._rollouts.measure_price.generate
        affordable = self._ledger.budget.unit != "flops" or 2 * price <= self._ledger.remaining
        self._record(model, step, lr, self.due and affordable)

    def finish(self, model: nn.Module) -> None:
        """Measure and record the finished model, unless its last record already did."""
        if self._final_step != self.step:
            self._record(model, self.step, 0.0, True)

    def _record(self, model: nn.Module, step: int, lr: float, measures: bool) -> None:
        curve = self._measured(model, step) if measures else None
        p = torch.from_numpy(self._rollouts.p)
        record: dict[str, Any] = {
            "step": step,
            "spent": {name: asdict(self._ledger.spent(name)) for name in ACCOUNTS if self._ledger.spent(name).flops},
            "generated": self._ledger.spent("generate").generated,
            "seconds": round(self.seconds, 3),
            "lr": lr,
            **({name: total / self._traces for name, total in self._sums.items()} if self._traces else {}),
            "mixture": dict(zip(self._tasks, p.tolist(), strict=True)),
            "n_eff": float(torch.exp(-(p[p > 0] * p[p > 0].log()).sum())),
            **({"curve": curve} if curve is not None else {}),
        }
        self._write("history.jsonl", record)
        for line in self._read(step) if self._traces else ():
            self._write(ROLLOUTS, line)
        self._sums, self._traces = dict.fromkeys(self._sums, 0.0), 0
        if self.log is not None:
            self.log(_flat(record))
        if self._show is not None:
            self._show(record, self._ledger.progress)

    def _measured(self, model: nn.Module, step: int) -> BudgetCurve:
        self.final = curve_of(self._rollouts.measure(model), self._rollouts.measuring.spec.budgets)
        self.first, self._final_step = self.first or self.final, step
        return self.final

    def _write(self, file: str, line: dict[str, Any]) -> None:
        self._append(file, line)
        self.lines[file] += 1

    def _read(self, step: int) -> list[dict[str, Any]]:
        """Return some of the step's roll-outs as a person reads them."""
        rolled, roller = self._rollouts.rolled, self._rollouts.roller
        flat = rolled.thinking.reshape(-1, rolled.thinking.shape[-1])
        return [
            {
                "step": step,
                "task": trace.problem.task,
                "prompt": _asked(trace.problem.row),
                "reference": " / ".join(trace.problem.references),
                "thinking": roller.tokenizer.decode(list(trace.thinking)),
                "answer": trace.summaries[-1][0].text,
                "reward": trace.summaries[-1][0].reward,
                "forced": trace.forced,
                "closed": not trace.forced,
                "tokens": {"thinking": len(trace.thinking), "answer": len(trace.summaries[-1][0].ids)},
                "cuts": [
                    {
                        "budget": budget,
                        "at": len(roller.tokenizer.decode(list(trace.thinking[: trace.kept(s, roller.spec.budgets)]))),
                        "answers": [summary.text for summary in trace.summaries[s]],
                        "rewards": [summary.reward for summary in trace.summaries[s]],
                    }
                    for s, budget in enumerate(roller.spec.budgets)
                ],
                "advantages": worth.tolist(),
            }
            for trace, worth in zip(rolled.traces[:KEPT], flat, strict=False)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the history, as plain numbers."""
        return {
            "step": self.step,
            "lines": self.lines,
            "first": self.first,
            "final": self.final,
            "final_step": self._final_step,
            "next_record": self._next_record,
            "next_curve": self._next_curve,
            "sums": self._sums,
            "traces": self._traces,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned; the clock goes on from there."""
        self.step, self.lines = state["step"], dict(state["lines"])
        self.first, self.final, self._final_step = state["first"], state["final"], state["final_step"]
        self._next_record, self._next_curve = state["next_record"], state["next_curve"]
        self._sums, self._traces = dict(state["sums"]), state["traces"]
        self._seconds_before, self._started = state["seconds"], time.monotonic()


def _asked(row: dict[str, Any]) -> str:
    """Return what was asked, as a person reads it."""
    return str(row["prompt"]) if "prompt" in row else "\n".join(turn["content"] for turn in row["messages"])


def _flat(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a record by the names that trackers show them under."""
    logs: dict[str, float] = {
        key: record[key] for key in ("reward", "correct", "thinking", "forced", "lr") if key in record
    }
    curve = record.get("curve")
    if curve:
        logs |= {f"accuracy/{b}": a for b, a in zip(curve["budgets"], curve["accuracy"], strict=True)}
        if curve["area"] is not None:
            logs["area"] = curve["area"]
    for account, spent in record["spent"].items():
        logs |= {f"spent/{account}/{column}": spent[column] for column in ("thinking", "answer", "flops")}
    return logs
