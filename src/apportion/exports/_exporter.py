"""What every exporter is: a frozen object that writes a run's mixture as one trainer's own config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from apportion._config import Config
from apportion._errors import ApportionError
from apportion.exports.shares import TaskShare

Kind = Literal["text", "pairs", "answers", "chats"]
"""What a task's examples are: plain text; prompts and completions without a chat template; conversations whose only answer
comes last; conversations with several answers."""
Shape = Literal["text", "pairs", "asked", "messages"]
"""How a row is written: ``text``; ``prompt`` and ``completion`` as texts; the same as lists of turns; ``messages``."""

_SAID = {"text": "plain text", "pairs": "prompts and completions", "answers": "conversations", "chats": "conversations"}


@dataclass(frozen=True)
class TaskFile:
    """A task's train split as it is handed on.

    Attributes:
        share: What the task gave the run.
        file: Its rows, one JSON object a line, as a path from the export's folder.
        rows: How many there are.
        draws: How many of them a run draws, those that it sees again counted again.
        shape: How they are written.
    """

    share: TaskShare
    file: str
    rows: int
    draws: int
    shape: Shape

    @property
    def stem(self) -> str:
        """The file's name without folder and suffix: letters, digits, ``.``, ``-`` and ``_`` only."""
        return self.file.rpartition("/")[2].removesuffix(".jsonl")

    @property
    def passes(self) -> tuple[int, int]:
        """How often the file is seen in full, and how many rows of it once more: what ``draws`` is made of."""
        return divmod(self.draws, self.rows)


@dataclass(frozen=True)
class Handed:
    """A run as other trainers are told it: plain values only.

    Attributes:
        tasks: Those that were drawn, in the collection's order.
        model: Hub name, or folder, of the model to start from.
        lora: The recipe's ``lora`` block; None where all parameters were trained.
        training: Hugging Face's arguments, by their names, with their defaults: `KNOBS`, all of them.
        given: Those arguments that the recipe set.
        dtype: What the model's weights are loaded in.
        attention: Its attention; None for the default.
        max_length: Longest example, in tokens.
        packing: Whether several examples shared a row.
        seed: The run's.
        templated: Whether the model's tokenizer has a chat template.
    """

    tasks: tuple[TaskFile, ...]
    model: str
    lora: Mapping[str, Any] | None
    training: Mapping[str, Any]
    given: frozenset[str]
    dtype: str
    attention: str | None
    max_length: int
    packing: bool
    seed: int
    templated: bool

    @property
    def rows(self) -> int:
        """How many rows a run draws."""
        return sum(task.draws for task in self.tasks)

    @property
    def shape(self) -> Shape:
        """How rows are written, where all are written alike."""
        return self.tasks[0].shape


KNOBS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "gradient_checkpointing",
    "bf16",
)
"""The arguments that are handed on; the warm-up is a share of training."""


@dataclass(frozen=True)
class Written:
    """An export, but for the rows.

    Attributes:
        files: Text by path from the export's folder.
        command: What to run in that folder.
        notes: Sentences on what the trainer cannot express, or does otherwise.
    """

    files: Mapping[str, str]
    command: str
    notes: tuple[str, ...] = field(default=())


class Exporter(Config):
    """Writes a run's mixture as one trainer's config.

    Attributes:
        title: The trainer's name.
        shapes: How it reads each kind of example; a kind that is not there it cannot train on.
        together: Whether files of several shapes go into one config.
        ends: Whether an answer has to hold the end token itself, because the trainer adds none.
        exact: Whether it draws just so many rows of each task; else as many on average.
        trains: Whether it trains; else it only hands out rows.
    """

    title: ClassVar[str]
    shapes: ClassVar[Mapping[Kind, Shape]]
    together: ClassVar[bool] = False
    ends: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    def shaped(self, kinds: Mapping[str, Kind]) -> dict[str, Shape]:
        """Return how the rows of each task are written, by name.

        Raises:
            ApportionError: A kind that the trainer does not read, or kinds that it does not read together.
        """
        for name, kind in kinds.items():
            if kind not in self.shapes:
                known = " or ".join(dict.fromkeys(_SAID[known] for known in self.shapes))
                raise ApportionError(
                    f"{self.title} does not train on {_SAID[kind]}, which task '{name}' is: it takes {known}. "
                    "Export to another trainer."
                )
        # Where one task's conversations have several answers, all tasks' are written as those are.
        several = "chats" in kinds.values()
        found = {name: self.shapes["chats" if several and kind == "answers" else kind] for name, kind in kinds.items()}
        first = next(iter(found))
        other = next((name for name in found if found[name] != found[first]), None)
        if other is not None and not self.together:
            raise ApportionError(
                f"Task '{first}' is {_SAID[kinds[first]]} and task '{other}' {_SAID[kinds[other]]}, which {self.title} does "
                "not mix: export to axolotl, which does."
            )
        return found

    def write(self, handed: Handed) -> Written:
        """Return the config's files, the command that trains by them, and what they cannot express."""
        raise NotImplementedError
