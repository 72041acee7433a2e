"""A task's examples as the rows of other trainers' files: of what kind they are, and how each is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from apportion._errors import ApportionError
from apportion.exports._exporter import Kind, Shape
from apportion.tasks import EncodedSplit, Example

_Turns = list[dict[str, str]]


def kind_of(task: str, examples: Sequence[Example], templated: bool) -> Kind:
    """Return what a task's examples are to a model.

    Args:
        task: The task's name.
        examples: Those of it that are handed on.
        templated: Whether the model's tokenizer has a chat template, by which prompts are turns too.

    Raises:
        ApportionError: Plain text beside conversations, or conversations that need a chat template without one.
    """
    plain = sum(_is_text(example) for example in examples)
    if plain == len(examples):
        return "text"
    if not templated:
        if any(_answers(example) > 1 for example in examples):
            raise ApportionError(
                f"Task '{task}' holds conversations with several answers, and the model's tokenizer has no chat "
                "template to write them with, which other trainers need: train with one that has."
            )
        return "pairs"
    if plain:
        raise ApportionError(
            f"Task '{task}' holds plain text beside prompts, which other trainers do not read from one file: make two "
            "tasks of it."
        )
    return "chats" if any(_answers(example) > 1 for example in examples) else "answers"


def _is_text(example: Example) -> bool:
    return not example.prompt and example.messages is None


def _answers(example: Example) -> int:
    """Return how many answers an example has; what follows the last one counts as another, for no trainer cuts it off."""
    if example.messages is None:
        return 1
    return sum(turn["role"] == "assistant" for turn in example.messages) + (example.messages[-1]["role"] != "assistant")


def _text(example: Example, end: str) -> Mapping[str, Any]:
    return {"text": example.completion}


def _pairs(example: Example, end: str) -> Mapping[str, Any]:
    # As `tasks.templates.PlainTemplate` writes them: the newline belongs to the prompt, and is not trained on.
    turns = _turns(example)
    before = "".join(f"{turn['content']}\n" for turn in turns[:-1] if turn["content"] or example.messages)
    return {"prompt": before, "completion": turns[-1]["content"] + end}


def _asked(example: Example, end: str) -> Mapping[str, Any]:
    turns = _turns(example)
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def _messages(example: Example, end: str) -> Mapping[str, Any]:
    return {"messages": _turns(example)}


def _turns(example: Example) -> _Turns:
    if example.messages is not None:
        return [{"role": turn["role"], "content": turn["content"]} for turn in example.messages]
    user = {"role": "user", "content": example.prompt}
    return [user, {"role": "assistant", "content": example.completion}]


_ROWS: Mapping[Shape, Callable[[Example, str], Mapping[str, Any]]] = {
    "text": _text,
    "pairs": _pairs,
    "asked": _asked,
    "messages": _messages,
}


def row_of(example: Example, shape: Shape, end: str) -> Mapping[str, Any]:
    """Return one example as a row; ``end`` follows the completion of a pair."""
    return _ROWS[shape](example, end)


def trained_on(examples: Iterable[Example], split: EncodedSplit) -> list[Example]:
    """Return those examples of a train split that are in what was encoded, and kept, of it."""
    ids = set(split.ids)
    # A long text is several examples there, "id", "id:1", "id:2", of which a selection may have kept any.
    texts = {id.rpartition(":")[0] for id in ids}
    return [example for example in examples if example.id in ids or (_is_text(example) and example.id in texts)]
