"""The reader of run folders: typed, strict about the schema, patient with a run that was killed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion._yaml import load_yaml
from apportion.runs.curve import FILE as CURVE
from apportion.runs.curve import CurveRecord
from apportion.runs.curves import counted_flops
from apportion.runs.evaluation import ANSWERS, FILE, Answer, EvaluationRecord
from apportion.runs.numbers import loss
from apportion.runs.reinforce import ROLLOUTS, Rollout, named
from apportion.runs.schema import (
    SCHEMA,
    HistoryRecord,
    LedgerRecord,
    MethodRecord,
    MixtureRecord,
    Spent,
    ValidationRecord,
)
from apportion.runs.uncertainty import combined, errors_of_metrics

_SEED = re.compile(r"seed-(\d+)")
_MOVED = 0.001  # a mixture that shifted less of its draws than this stood still


@dataclass(frozen=True, repr=False)
class RunRecord:
    """What a run folder says; the last six are None where there is no such file yet."""

    path: Path
    recipe: dict[str, Any]
    history: tuple[HistoryRecord, ...]
    ledger: LedgerRecord | None
    mixture: MixtureRecord | None
    summary: dict[str, Any] | None
    validation: ValidationRecord | None = None
    evaluation: EvaluationRecord | None = None
    curve: CurveRecord | None = None

    def __repr__(self) -> str:
        ended = in_a_line(self.method, self.seed, self.final, self.spent)
        unfinished = "" if self.finished else f", unfinished after {len(self.history):,} records"
        return f"{type(self).__name__}('{self.path}': {ended}{unfinished})"

    @property
    def finished(self) -> bool:
        """True if the run wrote its summary."""
        return self.summary is not None

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return int(self.recipe.get("seed", 0))

    @property
    def reinforced(self) -> bool:
        """True of a run of reinforcement, with the files of `apportion.runs.reinforce`; told apart here and nowhere else."""
        return bool(self.recipe.get("rl")) or (self.summary or {}).get("kind") == "reinforce"

    @property
    def rl(self) -> dict[str, Any]:
        """The recipe's ``rl`` block; empty in a run that is none of reinforcement."""
        block = self.recipe.get("rl") or {}
        return dict(block) if isinstance(block, Mapping) else {"type": str(block)}

    @property
    def start(self) -> str | None:
        """The run whose model reinforcement began with; None where the recipe does not say."""
        start = self.recipe.get("start") or self.rl.get("start")
        return None if start is None else str(start)

    @property
    def method(self) -> str:
        """The summary's name of the method, or the recipe's: the type of its mixture, or of its reinforcement."""
        of_recipe = kind(self.recipe, "rl", "brpo") if self.reinforced else kind(self.recipe, "mixture", "uniform")
        return str((self.summary or {}).get("method") or of_recipe)

    @property
    def name(self) -> str:
        """What its arm is called where no folder says: the method, with what sets it apart in a run of reinforcement."""
        if not self.reinforced:
            return self.method
        return str((self.summary or {}).get("name") or named(self.rl or {"type": self.method}))

    @property
    def is_baseline(self) -> bool:
        """True if nothing is measured for any of its methods: what a method has to beat."""
        return all(method["plain"] for method in self.methods.values())

    @property
    def methods(self) -> dict[str, MethodRecord]:
        """What its methods say of themselves, by family; worked out from the run where it has no such summary."""
        said: dict[str, MethodRecord] | None = (self.summary or {}).get("methods")
        return _guessed(self) if said is None else said

    @property
    def targets(self) -> dict[str, float]:
        """The importance of each target that losses were measured on, by name; empty where there are none."""
        importance = (self.recipe.get("targets") or {}).get("importance") or {}
        return {name: float(importance.get(name, 1.0)) for name in self.final.get("targets") or ()}

    @property
    def errors(self) -> dict[str, float | None]:
        """The standard errors of ``final`` by metric, from its examples; None where they are not known."""
        tasks, errors = self.final.get("validation") or {}, self.final.get("se") or {}
        found = errors_of_metrics(tasks, errors)
        if targets := self.targets:
            found["target"] = combined(targets, errors)
            found["others"] = combined({task: 1.0 for task in tasks if task not in targets}, errors)
        return found

    @property
    def examples(self) -> int:
        """How many examples the tasks' losses in ``final`` were measured on, 0 where the run does not say."""
        return self._counted(self.final.get("validation") or {})

    @property
    def target_examples(self) -> int:
        """How many examples the targets' losses in ``final`` were measured on, 0 where the run does not say."""
        return self._counted(self.targets)

    def _counted(self, names: Mapping[str, object]) -> int:
        return sum(n for name, n in (self.final.get("examples") or {}).items() if name in names)

    @cached_property
    def moved(self) -> float | None:
        """The largest share of the draws that changed task since the first recorded mixture; None where none is recorded."""
        mixtures = [record["mixture"] for record in self.history if record.get("mixture")]
        if not mixtures:
            return None
        return max(0.5 * sum(abs(m.get(task, 0.0) - p) for task, p in mixtures[0].items()) for m in mixtures)

    @property
    def spent(self) -> dict[str, Spent]:
        """The last known totals by account: the ledger's, or the last history record's where there is no ledger."""
        if self.ledger is not None and self.finished:
            return self.ledger["accounts"]
        if self.history:
            return self.history[-1]["spent"]
        return self.ledger["accounts"] if self.ledger is not None else {}

    @property
    def total_flops(self) -> float:
        """FLOPs over all accounts but `evaluate`: what a run costs does not depend on how much of it is looked at."""
        return counted_flops(self.spent)

    @property
    def supervised_tokens(self) -> int:
        """Supervised tokens trained on."""
        return int(self.spent["train"]["supervised"]) if "train" in self.spent else 0

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds: the summary's, or the last history record's."""
        if self.summary is not None and self.summary.get("seconds") is not None:
            return float(self.summary["seconds"])
        return float(self.history[-1]["seconds"]) if self.history else None

    @property
    def final(self) -> dict[str, Any]:
        """``macro``, ``worst``, ``objective``, ``validation`` at the end, or as last validated if unfinished.

        With targets ``targets``, ``target`` and ``others`` too.
        """
        if self.summary is not None and self.summary.get("final"):
            return dict(self.summary["final"])
        last = next((record for record in reversed(self.history) if record.get("validation")), None)
        if last is None:
            return {}
        of_targets = ("targets", "target", "others") if last.get("targets") else ()
        return {key: last.get(key) for key in ("macro", "worst", "objective", "validation", *of_targets)}


def _guessed(run: RunRecord) -> dict[str, MethodRecord]:
    """Judge an unfinished run, or one of an older version, by what it did: the only place where methods are guessed at.

    A mixture that was recorded and never moved is plain, and so are weights that are called uniform.
    """
    mixture, weights = kind(run.recipe, "mixture", "uniform"), kind(run.recipe, "weights", "uniform")
    return {
        "mixture": {"type": mixture, "plain": run.moved is not None and run.moved < _MOVED, "advice": {}},
        "weights": {"type": weights, "plain": weights == "uniform", "advice": {}},
    }


def in_a_line(method: str, seed: int, final: Mapping[str, Any], spent: Mapping[str, Spent]) -> str:
    """Return what a run ended with, or has come to, in a line: the loss or area that arms are judged by, and its cost."""
    metric = "target" if final.get("target") is not None else "macro"
    error = final.get(f"{metric}_se")
    parts = [method, f"seed {seed}"]
    if final.get(metric) is not None:
        parts.append(f"{metric} loss {loss(final[metric])}{'' if error is None else f' ± {loss(error)}'}")
    if final.get("area") is not None:
        parts.append(f"area {loss(final['area'])}")
    if "train" in spent:
        parts.append(f"{spent['train']['supervised']:,} supervised tokens")
        parts.append(f"{counted_flops(spent):.2g} FLOPs in all")
    return ", ".join(parts)


def kind(recipe: dict[str, Any], family: str, default: str) -> str:
    """Return the ``type`` a recipe gives for ``family``."""
    block = recipe.get(family)
    if isinstance(block, dict):
        return str(block.get("type", default))
    return str(block) if block else default


def is_run(path: str | Path) -> bool:
    """Return whether ``path`` is a run folder; one may hold child runs, a comparison may keep its recipe beside the arms.

    Raises:
        ApportionError: No permission to look.
    """
    path = Path(path)
    try:
        started = (path / "history.jsonl").exists() or (path / "checkpoints").is_dir()
        return (path / "recipe.yaml").is_file() and (started or not _seed_folders(path))
    except OSError as error:
        raise ApportionError(
            f"'{path}' cannot be read: {error.strerror or error}. See to its permissions, or give another folder."
        ) from None


def read_run(path: str | Path) -> RunRecord:
    """Read a run folder, finished or not.

    A last line of ``history.jsonl`` without its end, as a killed run leaves it, is left out.

    Raises:
        ApportionError: The folder is no run folder, a file in it cannot be read, or a newer version wrote it.
    """
    path = Path(path)
    if not is_run(path):
        raise ApportionError(f"'{path}' is not a run folder: it has no recipe.yaml.")
    text = _text(path / "recipe.yaml")
    try:
        recipe = load_yaml(text, "It")
    except ApportionError:
        recipe = None
    if not isinstance(recipe, dict):
        raise ApportionError(f"'{path / 'recipe.yaml'}' cannot be read as a recipe.")
    ledger: Any = _read_json(path / "ledger.json")
    mixture: Any = _read_json(path / "mixture.json")
    history, summary = _read_lines(path / "history.jsonl"), _read_json(path / "summary.json")
    validation: Any = _read_json(path / "validation.json")
    evaluation: Any = _read_json(path / FILE)
    curve: Any = _read_json(path / CURVE)
    return RunRecord(path, recipe, history, ledger, mixture, summary, validation, evaluation, curve)


def read_answers(path: str | Path, task: str, limit: int | None = None) -> list[Answer]:
    """Return the first ``limit`` answers that a run's model gave to a downstream task, or all; none where it has no file.

    Raises:
        ApportionError: The file cannot be read, or a newer version wrote it.
    """
    file = Path(path) / ANSWERS / f"{task}.jsonl"
    if not file.exists():
        return []
    lines = _text(file).split("\n")[:-1][:limit]
    answers: list[Any] = [_parse(line, f"Line {number} of '{file}'") for number, line in enumerate(lines, 1)]
    return answers


def read_rollouts(path: str | Path) -> list[Rollout]:
    """Return the roll-outs that a reinforcement run kept, in their order; none where it has no such file.

    A last line without its end, as a killed run leaves it, is left out.

    Raises:
        ApportionError: The file cannot be read, or a newer version wrote it.
    """
    rollouts: Any = _read_lines(Path(path) / ROLLOUTS)
    return list(rollouts)


def read_comparison(path: str | Path) -> dict[str, list[RunRecord]]:
    """Read a comparison folder: the runs of each arm in ``<path>/<arm>/seed-<s>/``, arms by name and runs by seed.

    Raises:
        ApportionError: There is no run in it.
    """
    path = Path(path)
    arms: dict[str, list[RunRecord]] = {}
    for _, arm, folder in sorted((seed, folder.parent.name, folder) for seed, folder in _seed_folders(path)):
        arms.setdefault(arm, []).append(read_run(folder))
    if not arms:
        raise ApportionError(f"'{path}' is not a comparison: it holds no '<arm>/seed-<s>/' run folders.")
    return dict(sorted(arms.items()))


def _seed_folders(path: Path) -> list[tuple[int, Path]]:
    found = ((_SEED.fullmatch(folder.name), folder) for folder in path.glob("*/seed-*"))
    return [(int(match[1]), folder) for match, folder in found if match and (folder / "recipe.yaml").is_file()]


def _read_lines(path: Path) -> tuple[Any, ...]:
    if not path.exists():
        return ()
    lines = _text(path).split("\n")[:-1]
    return tuple(_parse(line, f"Line {number} of '{path}'") for number, line in enumerate(lines, 1))


def _read_json(path: Path) -> dict[str, Any] | None:
    return _parse(_text(path), f"'{path}'") if path.exists() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise ApportionError(f"'{path}' cannot be read: {error.strerror or error}.") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ApportionError(f"{where} is not JSON ({error.msg}): the file was changed or cut.") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise ApportionError(
            f"{where} has schema {found!r}, this version reads {SCHEMA}: read it with the version that wrote it."
        )
    del record["schema"]
    return record
