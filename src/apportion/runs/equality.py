"""What has to be the same in all runs before one may be called better than another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apportion.runs.record import RunRecord

# Arms of a group that are named; of more, how many there are is said.
MOST_NAMED = 4

Read = Callable[[RunRecord], object]
Say = Callable[[Any], str]


def differences(arms: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """Return what keeps the runs from being compared, such as ``"budget (30,000 tokens in adapt, 60,000 in uniform)"``.

    Looked at are the budget, the data (their fingerprint), ``tasks.max_length``, the model, the settings of the validation
    and the examples that it was measured on; of reinforcement also the thinking budgets that it was measured at and, seed by
    seed, the run that it began with. What a run does not say, one that has not finished or an older one, is left
    out of account. Methods, training arguments and adapters may differ: they are what a comparison is about.
    """
    found = [said for asked in _ASKED for said in _difference(arms, *asked)]
    for seed in sorted({run.seed for runs in arms.values() for run in runs}):
        of_seed = {name: [run for run in runs if run.seed == seed] for name, runs in arms.items()}
        if said := _difference(of_seed, "start", lambda run: run.start, str):
            return [*found, *said]
    return found


def _difference(arms: Mapping[str, Sequence[RunRecord]], what: str, read: Read, say: Say | None) -> list[str]:
    values: dict[str, list[tuple[str, int]]] = {}
    for name, runs in arms.items():
        for run in runs:
            if (value := read(run)) is not None:
                values.setdefault(json.dumps(value, sort_keys=True), []).append((name, run.seed))
    return [f"{what} ({_groups(values, say)})"] if len(values) > 1 else []


def _groups(values: Mapping[str, Sequence[tuple[str, int]]], say: Say | None) -> str:
    groups = [list(dict.fromkeys(name for name, _ in runs)) for runs in values.values()]
    if len({name for names in groups for name in names}) < sum(map(len, groups)):  # an arm that differs in itself
        groups = [[f"{name} seed {seed}" for name, seed in runs] for runs in values.values()]
    who = [" and ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} others" for names in groups]
    if say is None:
        return " against ".join(who)
    return ", ".join(f"{say(json.loads(value))} in {names}" for value, names in zip(values, who, strict=True))


def _budget(run: RunRecord) -> object:
    return run.ledger.get("budget") if run.ledger else None


def _say_budget(budget: Any) -> str:  # noqa: ANN401 - as a ledger has it
    if budget["unit"] == "flops":
        return f"{budget['limit']:.3g} FLOPs"
    return f"{budget['limit']:,.0f} {budget['unit']} tokens"


def _fingerprint(run: RunRecord) -> object:
    return (run.summary or {}).get("fingerprint")


def _setting(block: str, key: str) -> Read:
    def read(run: RunRecord) -> object:
        settings = run.recipe.get(block)
        return settings.get(key) if isinstance(settings, dict) else None

    return read


def _examples(run: RunRecord) -> object:
    tasks = run.validation["tasks"] if run.validation and run.finished else None
    return tasks and {task: [examples["ids"], examples["supervised"]] for task, examples in tasks.items()}


def _thinking_budgets(run: RunRecord) -> object:
    accuracy = run.final.get("accuracy") if run.reinforced and run.finished else None
    return accuracy and sorted(accuracy, key=int)


_ASKED: tuple[tuple[str, Read, Say | None], ...] = (
    ("budget", _budget, _say_budget),
    ("data", _fingerprint, None),
    ("tasks.max_length", _setting("tasks", "max_length"), str),
    ("model", lambda run: run.recipe.get("model"), None),
    ("validation.every", _setting("validation", "every"), str),
    ("validation.examples_per_task", _setting("validation", "examples_per_task"), str),
    ("validation examples", _examples, None),
    ("thinking budgets measured", _thinking_budgets, ", ".join),
)
