"""Problems of tasks: prompts up to the open tag, with the answers that are right, from the tasks' own splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget
from apportion.decoding.requests import requests_of
from apportion.plans.build import Data, reported
from apportion.plans.recipe import Recipe
from apportion.tasks.example import Example
from apportion.thinking.tags import TagIds, ThinkingTags
from apportion.training.rl.traces import Problem


@dataclass(frozen=True)
class Problems:
    """What is trained on, by task in the data's order, and what is measured on."""

    train: list[list[Problem]]
    measured: list[Problem]


def problems_of(recipe: Recipe, data: Data, tags: ThinkingTags, ids: TagIds, room: int) -> Problems:
    """Return the problems of a recipe's tasks.

    Args:
        recipe: Whose tasks they are.
        data: These, encoded, which say what is measured on.
        tags: Of thinking: what stands behind the close tag of a completion is the answer.
        ids: The same as tokens.
        room: Tokens that a prompt may have.

    Raises:
        ApportionError: A prompt that is longer, or a task without an answer.
    """
    tasks = recipe.tasks.load()
    asked = _Asked(data, tags, ids, room)
    train = [
        asked.problems(task.name, [example for example in tasks[task.name].train if answers_of(example, tags)])
        for task in data.tasks.tasks
    ]
    for task, found in zip(data.tasks.tasks, train, strict=True):
        if not found:
            raise ApportionError(f"Task '{task.name}' has no example with an answer behind '{tags.close}'.")
    held = {(name, example.id): example for name in data.held_out.names for example in tasks[name].validation}
    names = data.held_out.names
    chosen = [(names[task], split.ids[index]) for task, split, index in reported(recipe, data)]
    measured = [one for name, id in chosen for one in asked.problems(name, [held[name, id]])]
    return Problems(train, measured)


def answers_of(example: Example, tags: ThinkingTags) -> tuple[str, ...]:
    """Return the answers that are right: the references, each without the thinking before it."""
    wanted = example.references or (example.completion,)
    found = (text.rpartition(tags.close)[2].strip() for text in wanted)
    return tuple(dict.fromkeys(text for text in found if text))


class _Asked:
    """Encodes prompts as the engine reads them."""

    def __init__(self, data: Data, tags: ThinkingTags, ids: TagIds, room: int) -> None:
        self._tokenizer, self._tags, self._ids = data.tokenizer, tags, ids
        self._room = room

    def problems(self, task: str, examples: list[Example]) -> list[Problem]:
        rows = [_row(example) for example in examples]
        requests = requests_of(rows, self._tokenizer, InferenceBudget(), self._room)
        return [
            Problem(task, row, self._ids.opened(request.ids), answers_of(example, self._tags))
            for row, request, example in zip(rows, requests, examples, strict=True)
        ]


def _row(example: Example) -> dict[str, Any]:
    if example.messages is None:
        return {"prompt": example.prompt}
    last = max(k for k, turn in enumerate(example.messages) if turn["role"] == "assistant")
    return {"messages": list(example.messages[:last])}
