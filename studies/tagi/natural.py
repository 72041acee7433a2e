"""Natural Instructions by task, shortened for a small model, with whole tasks held out.

Which tasks are held out follows from a rule, not from a look at results. A task may be held out if it has at least
``EVALUATED`` instances, no other task of its category has its source data set, and under ``SHARED`` of its inputs stand in
any other task. The categories are gone through in alphabetical order, again and again until there are ``HELD_OUT`` tasks;
each gives the one of its tasks with the shortest inputs (by their median: the least is lost in shortening), and always keeps
one that is trained on.

What is trained on is also cleaned of what is evaluated: no training input or output contains an evaluated input, as it is
shortened; one that is a single word or name, under ``SHORT`` characters, may be contained but is none of them.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

from apportion.tasks.splits import normalised
from studies.natural import INPUT, OUTPUT, cut, data

# Characters kept of a definition: the fewest hundreds that leave all of them different. Of a text to pre-train on: enough
# for three parts.
DEFINITION, TEXT = 200, 600
HELD_OUT, EVALUATED, SHARED = 12, 60, 0.05
# Instances of a task that are trained on, and inputs of it that are pre-trained on, at most.
TRAINED, TEXTS = 400, 1000
SHORT = 20


@dataclass(frozen=True)
class NaturalTask:
    """A task file: its instances as (input, references), white space and all, those that lack either left out."""

    name: str
    category: str
    sources: frozenset[str]
    definition: str
    instances: list[tuple[str, list[str]]]

    @cached_property
    def inputs(self) -> set[str]:
        """The different inputs, normalised."""
        return {normalised(text) for text, _ in self.instances}

    def drawn(self) -> list[tuple[str, list[str]]]:
        """The instances in an order that follows from the task's name."""
        return random.Random(self.name).sample(self.instances, len(self.instances))


def read() -> list[NaturalTask]:
    """Return the tasks under ``APPORTION_DATA``, by category and name."""
    tasks = []
    for file in sorted((data() / "natural-instructions").glob("*/*.json.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            content = json.load(stream)
        instances = [(row["input"], row["output"]) for row in content["Instances"]]
        whole = [(text, outputs) for text, outputs in instances if text.strip() and outputs[0].strip()]
        name = file.name.removesuffix(".json.gz")
        sources = frozenset(content["Source"])
        tasks.append(NaturalTask(name, file.parent.name, sources, cut(content["Definition"][0], DEFINITION), whole))
    return tasks


def held_out(tasks: list[NaturalTask]) -> list[str]:
    """Return the names of the tasks to hold out, by the rule above, in the order in which it finds them."""
    left = Counter(task.category for task in tasks)
    able = sorted((task for task in tasks if _able(task, tasks)), key=_length)
    chosen: list[str] = []
    while len(chosen) < HELD_OUT:
        before = len(chosen)
        for category in sorted(left):
            task = next((t for t in able if t.category == category and t.name not in chosen), None)
            if task and left[category] > 1 and len(chosen) < HELD_OUT:
                chosen.append(task.name)
                left[category] -= 1
        if len(chosen) == before:
            raise ValueError(f"only {before} of the {HELD_OUT} tasks to hold out are found")
    return chosen


def _able(task: NaturalTask, tasks: list[NaturalTask]) -> bool:
    others = [other for other in tasks if other is not task]
    alike = any(other.category == task.category and other.sources & task.sources for other in others)
    shared = max(len(task.inputs & other.inputs) for other in others) / len(task.inputs)
    return len(task.instances) >= EVALUATED and not alike and shared < SHARED


def _length(task: NaturalTask) -> float:
    return median(len(" ".join(text.split())) for text, _ in task.instances)


def write(folder: Path) -> None:
    """Write the study's data under ``folder``, the same each time.

    - ``train/<task>.jsonl``: rows ``{"instruction", "input", "output"}``, at most ``TRAINED`` a task.
    - ``held_out/<task>.jsonl``: ``EVALUATED`` rows a task, with ``"references"`` as well: all outputs, the first one first.
    - ``text.jsonl``: rows ``{"text"}``, inputs of the training tasks, at most ``TEXTS`` a task, none twice.
    - ``categories.json``: each task's category, the held-out ones included.

    Definitions, inputs and outputs are shortened; texts less so.
    """
    tasks = read()
    out = held_out(tasks)
    evaluated = {task.name: task.drawn()[:EVALUATED] for task in tasks if task.name in out}
    for name in ("train", "held_out"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for task in tasks:
        if task.name in out:
            rows = [
                _row(task, text, outputs) | {"references": list(dict.fromkeys(cut(each, OUTPUT) for each in outputs))}
                for text, outputs in evaluated[task.name]
            ]
            _write(folder / "held_out" / f"{task.name}.jsonl", rows)
    inputs = {normalised(cut(text, INPUT)) for instances in evaluated.values() for text, _ in instances}
    texts: dict[str, None] = {}
    for task in tasks:
        if task.name not in out:
            kept = _clean(task, inputs)
            _write(folder / "train" / f"{task.name}.jsonl", [_row(task, *instance) for instance in kept[:TRAINED]])
            texts |= dict.fromkeys(cut(text, TEXT) for text, _ in kept)
    _write(folder / "text.jsonl", [{"text": text} for text in texts])
    categories = {task.name: task.category for task in tasks}
    (folder / "categories.json").write_text(json.dumps(categories, indent=1) + "\n", encoding="utf-8")


def _clean(task: NaturalTask, evaluated: set[str]) -> list[tuple[str, list[str]]]:
    """Return up to ``TEXTS`` of the task's instances in which no evaluated input stands."""
    long = [text for text in evaluated if len(text) >= SHORT]
    kept: list[tuple[str, list[str]]] = []
    for text, outputs in task.drawn():
        said = [normalised(each) for each in (text, *outputs)]
        if evaluated.isdisjoint(said) and not any(each in one for one in said for each in long):
            kept.append((text, outputs))
        if len(kept) == TEXTS:
            break
    return kept


def _row(task: NaturalTask, text: str, outputs: list[str]) -> dict[str, object]:
    return {"instruction": task.definition, "input": cut(text, INPUT), "output": cut(outputs[0], OUTPUT)}


def _write(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
