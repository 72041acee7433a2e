"""Benchmarks of a finished run: its model is loaded once, asked what it was not asked yet, and charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from apportion._errors import ApportionError
from apportion.budget import Budget, Ledger
from apportion.evaluation.spec import EvaluateSpec
from apportion.models.loading import build_model, load_tokenizer
from apportion.models.specs import ModelSpec
from apportion.plans.evaluating import Evaluating, Told
from apportion.plans.recipe import Recipe, parse_recipe
from apportion.runs import RunFolder, RunRecord, is_run, read_comparison, read_run
from apportion.runs.evaluation import EvaluationRecord


@dataclass(frozen=True)
class Evaluated:
    """The benchmarks of a run: its folder, all that is known of them, and how many tasks were asked now."""

    path: Path
    record: EvaluationRecord
    asked: int


def runs_in(paths: Sequence[str | Path]) -> list[Path]:
    """Return the run folders at the paths, those of a comparison one by one.

    Raises:
        ApportionError: One is neither a run nor a comparison.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise ApportionError(f"'{path}' is not a folder: give a finished run, or a comparison.")
        found += [path] if is_run(path) else [run.path for runs in read_comparison(path).values() for run in runs]
    return list(dict.fromkeys(found))


def evaluating_of(path: str | Path, spec: EvaluateSpec | None = None) -> Evaluating:
    """Return the stage that a finished run's benchmarks are; nothing is loaded yet.

    Args:
        path: The run folder.
        spec: What to ask; the recipe's own ``evaluate`` where None.

    Raises:
        ApportionError: No finished run, nothing to ask, or a kind of model that answers nothing.
    """
    path = Path(path)
    run = read_run(path)
    if not run.finished:
        raise ApportionError(f"The run '{path}' is not finished: the same command that began it goes on with it.")
    recipe = parse_recipe(run.recipe)
    spec = spec or recipe.evaluate
    if spec is None:
        raise ApportionError(f"The recipe of '{path}' names no benchmarks: say which with --tasks, such as bbh,gsm8k.")
    kind = recipe.model_kind()
    if not kind.answers:
        raise kind.refusal("A benchmark")
    tokenizer = load_tokenizer(ModelSpec(name=str(path / "model")), recipe.tasks)
    args = recipe.arguments(path)
    shapes = build_model(_saved(recipe, path), tokenizer, lora=recipe.lora, seed=recipe.seed, meta=True)

    def model() -> nn.Module:
        return kind.trained(path / "model").to(args.device)

    return Evaluating(
        spec,
        path,
        shapes=shapes,
        prices=kind.prices(shapes),
        tokenizer=tokenizer,
        batch_size=args.per_device_eval_batch_size,
        model=model,
    )


def _saved(recipe: Recipe, path: Path) -> ModelSpec:
    """Return where the model's shapes are: those of an adapter are the recipe's, which name its base."""
    return recipe.model if recipe.lora is not None else ModelSpec(name=str(path / "model"))


def evaluate_run(path: str | Path, spec: EvaluateSpec | None = None, told: Told | None = None) -> Evaluated:
    """Ask a finished run's model benchmarks; goes on where it was stopped, task by task.

    Args:
        path: The run folder; ``evaluation.json`` and ``evaluation/<task>.jsonl`` are written into it.
        spec: What to ask; the recipe's own ``evaluate`` where None.
        told: Called with how many tasks of how many are done.

    Raises:
        ApportionError: No finished run, benchmarks that are not at hand or do not fit the model, or a folder in use.

    Cost: charged to `evaluate` in ``ledger.json``, exactly as it was worked on.
    """
    path = Path(path)
    stage = evaluating_of(path, spec)
    stage.told = told or stage.told
    stage.check(Ledger(Budget("flops", 1.0)))
    with RunFolder.reopen(path) as folder:
        asked = len(stage.left)
        stage.run(_ledger_of(read_run(path)), folder, None)
    record = read_run(path).evaluation
    assert record is not None
    return Evaluated(path, record, asked)


def _ledger_of(run: RunRecord) -> Ledger:
    """Return a finished run's ledger as training left it, to which the stage adds all benchmarks anew."""
    assert run.ledger is not None and run.summary is not None
    limit = run.ledger["budget"]["limit"]
    unit = run.ledger["budget"]["unit"]
    ledger = Ledger(Budget(unit, limit if unit == "flops" else int(limit)))  # type: ignore[arg-type]
    accounts = {**run.ledger["accounts"], "evaluate": run.summary["spent"]["evaluate"]}
    ledger.load_state_dict({"budget": run.ledger["budget"], "accounts": accounts})
    return ledger
