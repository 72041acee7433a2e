"""A collection of tasks in a fixed order, and how raw tasks become one: cleaning, ids, splits, findings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from apportion._config import Config
from apportion._errors import ApportionError, nearest
from apportion.tasks.example import Example, RawTask, Task
from apportion.tasks.findings import counted, sentences
from apportion.tasks.muting import mute
from apportion.tasks.splits import VALIDATION, hashed, normalised, opening, split_sides

SPLITS = ("train", "validation", "test")
# An opening that so large a share of a task's conversations begins with is worth a sentence.
_COMMON = 0.1
# A task's name, its examples, and the normalised text that each one's side of the split goes by.
_Kept = tuple[str, list[Example], list[str]]
_SAID = {
    "blank": ("example", "with a blank completion: dropped"),
    "promptless": ("example", "with nothing but the instruction, which stands apart, for a prompt: dropped"),
    "repeats": ("example", "repeating prompt and completion of another in the same task: dropped"),
    "targeted": ("example", "whose prompt stands in a target: taken out of its task"),
    "across": ("input and completion pair", "in more than one task: kept in each, on one side of the split"),
    "ids": ("example", "with an id already in use: given a numbered one"),
    "surrogates": ("example", "with halves of Unicode surrogate pairs: replaced by the replacement character"),
    "replacement": ("example", "with the Unicode replacement character: kept"),
    "edges": ("example", "with white space at an end of the completion: kept as is"),
    "references": ("example", "with several references: the first is the completion, all are kept as references"),
    "muted": ("held-out turn", "trained on too after the same words of the user's: context only, not measured"),
    "held": ("held-out example", "of which every answer is trained on too after the same words of the user's: dropped"),
    "moved": ("distinct prompt", "moved between splits, so that every small task has enough to validate on"),
}


class TaskCollection:
    """Tasks in a fixed order, with what was found wrong with their data.

    Args:
        tasks: The tasks; their order is the order of every vector over tasks.
        findings: Plain sentences with counts: dirt in the data and what was done about it.
        fingerprint: A digest of data and settings; computed from the examples where it is not given.

    Attributes:
        targets: Names of those that are targets with data of their own; they come last.
        spec: The ``tasks`` block that reads them again, where `load_tasks` read them; a run needs one to be rerun.

    Raises:
        ApportionError: No task, or two of one name.
    """

    def __init__(self, tasks: Sequence[Task], findings: Sequence[str] = (), fingerprint: str | None = None) -> None:
        self.tasks = tuple(tasks)
        self.findings = list(findings)
        self.targets: tuple[str, ...] = ()
        self.spec: Config | None = None
        self._index = {task.name: i for i, task in enumerate(self.tasks)}
        if not self.tasks:
            raise ApportionError("There are no tasks here: name a file, a folder or a source that holds some.")
        if len(self._index) < len(self.tasks):
            twice = next(name for name, n in Counter(task.name for task in self.tasks).items() if n > 1)
            raise ApportionError(f"Two tasks are called '{twice}': rename one of them.")
        self.fingerprint = fingerprint or content_fingerprint(self.tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The tasks' instructions, in order; "" where a task's instruction is part of its prompts."""
        return tuple(task.instruction for task in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __getitem__(self, name: str) -> Task:
        if name not in self._index:
            raise ApportionError(f"Unknown task '{name}'{nearest(name, self._index)}.")
        return self.tasks[self._index[name]]

    def __repr__(self) -> str:
        total = sum(len(task.train) + len(task.validation) + len(task.test) for task in self.tasks)
        return f"TaskCollection({counted(len(self), 'task')}, {counted(total, 'example')})"

    def _repr_html_(self) -> str:
        from apportion.tasks.drawing import html

        return html(self)


def content_fingerprint(tasks: Sequence[Task]) -> str:
    """Return a digest of every example, its task and its split, and of each task's instruction."""
    digest = hashlib.blake2b(digest_size=16)
    for task in tasks:
        if task.instruction:
            digest.update(f"\x00{task.name}\x00instruction\x00{task.instruction}".encode("utf-8", "surrogatepass"))
        for split in SPLITS:
            digest.update(f"\x00{task.name}\x00{split}\x00{len(task.split(split))}".encode())
            for example in task.split(split):
                digest.update(repr(example).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Goals:
    """Targets with data of their own, before they are split.

    Attributes:
        raw: Their examples, a task a target.
        validation: Share of distinct prompts that losses are measured on; 1 for all, where nothing is to be trained on.
        keep: Whether the other tasks keep the prompts that stand in a target.
    """

    raw: Sequence[RawTask]
    validation: float
    keep: bool


def assemble(
    raw: Sequence[RawTask], validation: float, test: float, fingerprint: str | None = None, goals: Goals | None = None
) -> TaskCollection:
    """Clean raw tasks, split them together, and say what was found.

    Examples with a blank completion and exact repeats of a (prompt, completion) within a task are dropped, and blank
    prompts of a task whose instruction stands apart: they would be plain text. A pair that stands in two tasks is kept in
    both: they are two tasks' data, and the split keeps them on one side. What held-out conversations share with train all
    the same, an answer after the same words of the user's, is context only (`muting.mute`).

    Targets come after the tasks, as tasks with a train split of their share or with none. What stands in a target is taken
    out of the tasks before these are split, unless they are to keep it.

    Raises:
        ApportionError: Two tasks of one name, a task that has fewer than two distinct prompts or openings, one left
            without validation examples, or one of which all stands in the targets.
    """
    wanted = goals.raw if goals else ()
    _check_names(raw, wanted)
    dirt: Counter[str] = Counter()
    seen_ids: set[str] = set()
    kept, aims = ([_kept(task, dirt, seen_ids) for task in part] for part in (raw, wanted))
    if goals and not goals.keep:
        kept = _taken_out(kept, aims, dirt)
    _count_across([*kept, *aims], dirt)
    openers = _openers([*kept, *aims])
    parts = [_parted(kept, validation, test, dirt)]
    if goals:
        parts.append(_parted(aims, goals.validation, 0.0, dirt))
    together = [[*parts[0], *parts[1]]] if goals and not goals.keep else parts
    for part in together:
        mute(part, dirt)
    instructions = [_whole(task.instruction) for task in (*raw, *wanted)]
    tasks = [
        Task(name, **splits, instruction=instruction)
        for (name, splits), instruction in zip(chain.from_iterable(parts), instructions, strict=True)
    ]
    collection = TaskCollection(tasks, [*sentences(dirt, _SAID), *openers], fingerprint)
    collection.targets = tuple(task.name for task in wanted)
    return collection


def _kept(task: RawTask, dirt: Counter[str], seen_ids: set[str]) -> _Kept:
    examples, keys = _clean(task, dirt, seen_ids)
    return task.name, examples, [normalised(key) for key in keys]


def _taken_out(kept: Sequence[_Kept], aims: Sequence[_Kept], dirt: Counter[str]) -> list[_Kept]:
    """Return the tasks without the prompts that stand in a target."""
    held = {key for _, _, keys in aims for key in keys}
    left = []
    for name, examples, keys in kept:
        places = [i for i, key in enumerate(keys) if key not in held]
        dirt["targeted"] += len(keys) - len(places)
        if not places:
            raise ApportionError(
                f"Every prompt of task '{name}' stands in a target, so that nothing of it is left to train on: leave the "
                "task out, or say 'targets.overlap: keep'."
            )
        left.append((name, [examples[i] for i in places], [keys[i] for i in places]))
    return left


def _parted(
    kept: Sequence[_Kept], validation: float, test: float, dirt: Counter[str]
) -> list[tuple[str, dict[str, list[Example]]]]:
    """Return each task's examples by split."""
    if validation < 1:
        sides, moved = split_sides([(name, keys) for name, _, keys in kept], validation, test)
        dirt["moved"] += moved
    else:
        sides = {key: VALIDATION for _, _, keys in kept for key in keys}
    parted = []
    for name, examples, keys in kept:
        parts: dict[str, list[Example]] = {split: [] for split in SPLITS}
        for example, key in zip(examples, keys, strict=True):
            parts[SPLITS[sides[key]]].append(replace(example, key=hashed(key)))
        parted.append((name, parts))
    return parted


def _check_names(raw: Sequence[RawTask], wanted: Sequence[RawTask]) -> None:
    origins: dict[str, str] = {}
    for number, task in enumerate([*raw, *wanted]):
        kind = "Task" if number < len(raw) else "Target"
        if task.name in origins:
            twice = "A task and a target" if kind == "Target" else "Two tasks"
            raise ApportionError(
                f"{twice} are called '{task.name}': {origins[task.name]} and {task.origin}; rename one of them."
            )
        origins[task.name] = task.origin
        if not task.examples:
            raise ApportionError(f"{kind} '{task.name}' ({task.origin}) is empty: add examples or leave it out.")


def _openers(kept: Sequence[_Kept]) -> list[str]:
    """Return a sentence on each task whose conversations often begin alike; one opening is always on one side.

    Raises:
        ApportionError: All conversations of a task do.
    """
    said = []
    for name, examples, keys in kept:
        if len(keys) < 2 or not all(example.messages for example in examples):
            continue
        (most, count), *_ = Counter(keys).most_common(1)
        if count == len(keys):
            raise ApportionError(
                f"All {count:,} conversations of task '{name}' begin with the same words of the user's, which decide "
                "between train and validation: make these words a system prompt or take them out, or leave the task out."
            )
        if count > max(1, _COMMON * len(keys)):
            words = opening(examples[keys.index(most)])
            said.append(
                f"{count:,} of the {len(keys):,} conversations of task '{name}' begin with "
                f"'{words[:40]}{'...' if len(words) > 40 else ''}', so all of them are on one side of the split."
            )
    return said


def _clean(task: RawTask, dirt: Counter[str], seen_ids: set[str]) -> tuple[list[Example], list[str]]:
    examples: list[Example] = []
    keys: list[str] = []
    pairs: set[tuple[object, str]] = set()
    for i, read in enumerate(task.examples):
        example = mended(read)
        dirt["surrogates"] += example is not read
        if not example.completion.strip():
            dirt["blank"] += 1
            continue
        if task.instruction and not example.messages and not example.prompt.strip():
            dirt["promptless"] += 1
            continue
        pair = (repr(example.messages) if example.messages else example.prompt, example.completion)
        if pair in pairs:
            dirt["repeats"] += 1
            continue
        pairs.add(pair)
        dirt["replacement"] += "\ufffd" in example.prompt or "\ufffd" in example.completion
        dirt["edges"] += example.completion != example.completion.strip()
        dirt["references"] += len(example.references) > 1
        unique = example.id
        number = 1
        while unique in seen_ids:
            number += 1
            unique = f"{example.id}#{number}"
        seen_ids.add(unique)
        dirt["ids"] += number > 1
        examples.append(example if number == 1 else replace(example, id=unique))
        keys.append(task.keys[i] if task.keys is not None else opening(example))
    if not examples:
        raise ApportionError(
            f"Task '{task.name}' ({task.origin}) has only blank completions{' or prompts' if task.instruction else ''}: "
            "fill them in or leave the task out."
        )
    return examples, keys


def mended(example: Example) -> Example:
    """Return the example with what no tokenizer takes, halves of surrogate pairs, replaced; itself if it has none."""
    texts = [example.prompt, example.completion, *example.references, example.id]
    texts += [text for message in example.messages or () for text in message.values()]
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        messages = example.messages and tuple({k: _whole(v) for k, v in turn.items()} for turn in example.messages)
        references = tuple(_whole(reference) for reference in example.references)
        return replace(
            example,
            prompt=_whole(example.prompt),
            completion=_whole(example.completion),
            id=_whole(example.id),
            messages=messages,
            references=references,
        )
    return example


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count_across(kept: Sequence[_Kept], dirt: Counter[str]) -> None:
    first: dict[int, int] = {}
    shared: set[int] = set()
    for number, (_, examples, keys) in enumerate(kept):
        for example, key in zip(examples, keys, strict=True):
            pair = hash((key, example.completion))
            if first.setdefault(pair, number) != number:
                shared.add(pair)
    dirt["across"] = len(shared)
