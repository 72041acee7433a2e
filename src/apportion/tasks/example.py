"""The two nouns everything else is made of: an example and a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its completion.

    ``messages`` is set for chat-shaped data only; ``prompt`` and ``completion`` are then the text before and in its last
    assistant turn. ``references`` are all accepted answers, the completion first. An example with an empty prompt and no
    messages is plain text: all of its tokens but the first are supervised. ``muted`` are the places of assistant's turns
    that are context only. ``key`` is the hash that its side of the split went by; None stands for that of its `opening`.
    """

    prompt: str
    completion: str
    id: str
    messages: tuple[dict[str, str], ...] | None = None
    references: tuple[str, ...] = ()
    muted: tuple[int, ...] = ()
    key: int | None = None


@dataclass(frozen=True)
class Task:
    """A named set of examples, split; no prompt stands in two splits, in this task or in any other.

    ``instruction`` says what the task asks for, where that stands apart from the prompts; "" where it is in them.
    """

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    instruction: str = ""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split}: {len(self.split(split))}" for split in ("train", "validation", "test"))
        return f"Task({self.name!r}, {sizes})"

    def split(self, name: str) -> list[Example]:
        """Return the split called ``name``: "train", "validation" or "test"."""
        examples: list[Example] = getattr(self, name)
        return examples


@dataclass(frozen=True)
class RawTask:
    """What a source hands over: a task not yet cleaned or split.

    ``origin`` says where it came from, for error messages. ``keys`` are the texts the split hashes, one an example; None
    means the prompts, of a conversation the first user's turn. A source whose prompts repeat one instruction gives the
    inputs instead, so that one input under two instructions stays on one side. ``instruction`` is the task's, where it
    stands apart from its prompts.
    """

    name: str
    origin: str
    examples: list[Example]
    keys: list[str] | None = None
    instruction: str = ""
