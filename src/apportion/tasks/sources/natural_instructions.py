"""Super-NaturalInstructions, in the project's own JSON task files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from apportion._errors import ApportionError
from apportion.tasks.example import Example, RawTask
from apportion.tasks.files import expand, files_digest, find, kind, read_text, stem, walk
from apportion.tasks.findings import counted
from apportion.tasks.sources._formats import READERS, parse_json
from apportion.tasks.sources._source import Reading, Source, paths_of

_SUFFIXES = (".json",)


class NaturalInstructions(Source):
    """Task files, plain or gzipped: one file, a folder of them at any depth, or several of either.

    The prompt is the definition, a blank line and the input; the completion is the first reference. With ``instruction:
    apart`` the definition is the task's instruction and the prompt the input alone. The split hashes the input in either
    case, so that one input under two definitions stays on one side.

    Args:
        path: File or folder, or a list of them.
        group_by: ``task``: each file is a task, called by the file's name; ``category``: the files of one (first)
            category are a task, called by that category.

    References: Wang, Mishra et al., Super-NaturalInstructions, 2022 (arXiv 2204.07705).
    """

    path: str | tuple[str, ...]
    group_by: Literal["task", "category"] = "task"

    @model_validator(mode="after")
    def _one_definition(self) -> NaturalInstructions:
        if self.instruction == "apart" and self.group_by == "category":
            raise ApportionError(
                "'tasks.group_by' is category, which has several definitions, so none can stand apart as the task's "
                "instruction: group by task, or leave out 'tasks.instruction'."
            )
        return self

    def read(self) -> Reading:
        """Return the tasks, sorted by name of category, or by path; see the base class."""
        gathered: dict[str, tuple[str, list[Example], list[str]]] = {}
        raw = []
        for file in self._files():
            task = _read_file(file, self.group_by, self.instruction == "apart")
            if self.group_by == "task":
                raw.append(task)
                continue
            _, all_examples, all_inputs = gathered.setdefault(task.name, (str(file), [], []))
            all_examples.extend(task.examples)
            all_inputs.extend(task.keys or ())
        return Reading(raw + [RawTask(name, *gathered[name]) for name in sorted(gathered)], self._left_out())

    def digest(self) -> str:
        """Return a digest of the files' bytes."""
        digests = [files_digest(find(path, _SUFFIXES), expand(path)) for _, path in paths_of(self.path)]
        return digests[0] if len(digests) == 1 else " ".join(digests)

    def _files(self) -> list[Path]:
        return [file for _, path in paths_of(self.path) for file in find(path, _SUFFIXES)]

    def _left_out(self) -> tuple[str, ...]:
        found = [file for _, path in paths_of(self.path) for file in walk(expand(path))]
        others = [file for file in found if kind(file) in READERS and kind(file) not in _SUFFIXES]
        if not others:
            return ()
        return (f"{counted(len(others), 'file')} of another kind than .json (such as {others[0]}): left out.",)


def _read_file(file: Path, group_by: str, apart: bool) -> RawTask:
    # Python's parser takes the bare NaN that some task files have under "URL".
    content = parse_json(read_text(file), file)
    if not isinstance(content, dict) or "Definition" not in content or not isinstance(content.get("Instances"), list):
        fields = f"an object with {', '.join(sorted(content)) or 'nothing'}" if isinstance(content, dict) else None
        raise ApportionError(
            f"{file} holds {fields or type(content).__name__}: a .json file must hold a list of rows, a row a line, or a "
            "Super-NaturalInstructions task with 'Definition' and a list 'Instances'."
        )
    definition = _text(content["Definition"])
    name = stem(file)
    if group_by == "category":
        name = _text(content.get("Categories"))
        if not name:
            raise ApportionError(f"{file} has no 'Categories': group by task, or add the category to the file.")
    examples, inputs = [], []
    for i, instance in enumerate(content["Instances"]):
        text, outputs, number = _instance(instance, file, i)
        prompt = text if apart else f"{definition}\n\n{text}"
        examples.append(Example(prompt, outputs[0] if outputs else "", number, references=tuple(outputs)))
        inputs.append(text)
    return RawTask(name, str(file), examples, inputs, definition.strip() if apart else "")


def _text(value: object) -> str:
    """Return the one string of a field that may be a string or a list of strings; "" if it is neither."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) else ""


def _instance(instance: object, file: Path, i: int) -> tuple[str, list[str], str]:
    if isinstance(instance, dict):
        text, outputs = instance.get("input"), instance.get("output")
        outputs = [outputs] if isinstance(outputs, str) else outputs
        if isinstance(text, str) and isinstance(outputs, list) and all(isinstance(o, str) for o in outputs):
            return text, outputs, str(instance.get("id") or f"{stem(file)}-{i}")
    found = ", ".join(sorted(instance)) if isinstance(instance, dict) else type(instance).__name__
    raise ApportionError(
        f"{file}: instance {i} of 'Instances' needs 'input' (text) and 'output' (list of texts), but has {found}."
    )
