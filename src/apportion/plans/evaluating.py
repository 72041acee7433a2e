"""The stage of benchmarks: a trained model is asked what the recipe names, task by task, each charged and kept at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from apportion.budget import Ledger
from apportion.budget.prices import Cost, Prices
from apportion.evaluation import catalogue
from apportion.evaluation.aside import aside
from apportion.evaluation.spec import EvaluateSpec
from apportion.plans.progress import Told
from apportion.plans.stages import Costs, Stage
from apportion.runs import RunFolder, read_run
from apportion.runs.evaluation import EvaluationRecord, TaskScores, set_scores, write_answers, write_evaluation
from apportion.training.recorder import Show

if TYPE_CHECKING:
    from apportion.evaluation.catalogue import Benchmark


class Evaluating(Stage):
    """Asks a model the benchmarks of a recipe's ``evaluate`` block; what a run folder has of them is not asked again.

    Args:
        spec: The block.
        out: The run folder.
        shapes: The model on the meta device.
        prices: Of its passes.
        tokenizer: Its.
        batch_size: Rows of a pass.
        model: Returns the trained model, once that is there.

    Attributes:
        told: Called with how many tasks of how many are done.
    """

    name = "evaluate"

    def __init__(
        self,
        spec: EvaluateSpec,
        out: Path,
        *,
        shapes: nn.Module,
        prices: Prices,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        model: Callable[[], nn.Module],
    ) -> None:
        self.told: Told = lambda done, of: None
        self._spec, self._out, self._model = spec, out, model
        self._shapes, self._prices, self._tokenizer, self._batch_size = shapes, prices, tokenizer, batch_size

    @cached_property
    def benchmarks(self) -> list[Benchmark]:
        """The tasks, in their order.

        Raises:
            ApportionError: One that cannot be read.
        """
        return catalogue.load(self._spec.tasks, run_code=self._spec.run_code)

    @property
    def left(self) -> list[Benchmark]:
        """Those that the run folder does not have, measured in the same way."""
        done = self._record()["tasks"]
        return [b for b in self.benchmarks if b.name not in done or done[b.name]["settings"] != self._spec.settings]

    @property
    def finished(self) -> bool:
        """Whether none is left."""
        return not self.left

    def check(self, ledger: Ledger) -> None:
        """Refuse a benchmark that cannot be read, or does not fit the model."""
        _ = self._full_price

    def price(self, ledger: Ledger) -> Costs:
        """Return what all of them take: at most, of those that are left; what they took, of the others."""
        done, left = self._record()["tasks"], {benchmark.name for benchmark in self.left}
        spent = [done[benchmark.name]["spent"] for benchmark in self.benchmarks if benchmark.name not in left]
        took = (Cost(part["supervised"], part["processed"], part["flops"]) for part in spent)
        return {"evaluate": sum(took, sum((self._full_price[name] for name in left), Cost()))}

    def full_price(self) -> Cost:
        """Return what asking all of them once takes, answers at their full length."""
        return sum(self._full_price.values(), Cost())

    @cached_property
    def _full_price(self) -> dict[str, Cost]:
        from apportion.evaluation import harness

        asker = self._asker(self._shapes, dry=True)
        return {benchmark.name: harness.price(benchmark, asker, self._spec) for benchmark in self.benchmarks}

    def run(self, ledger: Ledger, folder: RunFolder | None, show: Show | None) -> None:
        """Ask what is left, and charge `evaluate` with all; several processes leave it to the first."""
        if folder is None:
            return
        record, left = self._record(), self.left
        record["groups"] |= catalogue.groups_of(self._spec.tasks)
        _charge(ledger, [task["spent"] for task in record["tasks"].values()])
        _charge(ledger, [record["earlier"]] if "earlier" in record else [])
        asker = self._asker(self._model()) if left else None
        for done, benchmark in enumerate(left):
            assert asker is not None
            self.told(done, len(left))
            self._ask(asker, benchmark, record, ledger)
            folder.write_ledger(ledger.as_dict())
        self.told(len(left), len(left))
        write_evaluation(self._out, record)
        folder.write_ledger(ledger.as_dict())

    def _ask(self, asker: Any, benchmark: Benchmark, record: EvaluationRecord, ledger: Ledger) -> None:  # noqa: ANN401
        from apportion.evaluation import harness

        scores, answers = harness.run(benchmark, asker, self._spec)
        write_answers(self._out, benchmark.name, answers)
        before = record["tasks"].get(benchmark.name)
        if before is not None:
            earlier = record.get("earlier", dict.fromkeys(before["spent"], 0))
            record["earlier"] = {key: earlier[key] + spent for key, spent in before["spent"].items()}  # type: ignore
        record["tasks"][benchmark.name] = scores
        record["versions"] = {"lm_eval": _version()}
        write_evaluation(self._out, record)
        _charge(ledger, [scores["spent"]])

    def during(self, model: nn.Module, ledger: Ledger) -> dict[str, float]:
        """Ask a model that goes on to be trained all of them, charge `evaluate`, and return the score of each set.

        The model is put back into the mode it was in, and every random generator to where it was.
        """
        from apportion.evaluation import harness

        modes = {module: module.training for module in model.modules()}
        asker = self._asker(model)
        try:
            tasks: dict[str, TaskScores] = {}
            for benchmark in self.benchmarks:
                tasks[benchmark.name], _ = harness.run(benchmark, asker, self._spec)
        finally:
            for module, mode in modes.items():
                module.training = mode
        _charge(ledger, [task["spent"] for task in tasks.values()])
        return {name: mean.value for name, mean in set_scores({"tasks": tasks, "groups": {}}).items()}

    def _asker(self, model: nn.Module, *, dry: bool = False) -> Any:  # noqa: ANN401 - the harness is an extra
        from apportion.evaluation.metered import Metered

        with aside():
            return Metered(model, self._tokenizer, self._prices, self._batch_size, dry=dry)

    def _record(self) -> EvaluationRecord:
        found = read_run(self._out).evaluation if (self._out / "recipe.yaml").is_file() else None
        return found or {"tasks": {}, "groups": {}}


def _charge(ledger: Ledger, spent: Iterable[Any]) -> None:
    for part in spent:
        ledger.charge("evaluate", **part)


def _version() -> str:
    import lm_eval

    return str(lm_eval.__version__)
