"""What no other trainer expresses of a run, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apportion.exports._exporter import Exporter, Handed

# A mixture that shifted fewer of its draws than this is as good as a static one.
_STILL = 0.05
_MOST_NAMED = 6


@dataclass(frozen=True)
class Told:
    """What is known of a run beside what is handed on.

    Attributes:
        moved: The largest share of its draws that changed task while it trained; None where none is recorded.
        weights: The type of its weights.
        cuts: Share of its train examples whose thinking was cut.
        capped: Targets that were trained on within a cap of epochs.
        undrawn: Tasks that gave nothing.
        scratch: Whether its model was made from a config.
        tokenizer: The name of its tokenizer, where that is not the model's own.
        unsaid: Training arguments that the recipe set and that no export hands on.
    """

    moved: float | None
    weights: str
    cuts: float
    capped: Sequence[str]
    undrawn: Sequence[str]
    scratch: bool
    tokenizer: str | None
    unsaid: Sequence[str]


def notes_on(exporter: Exporter, handed: Handed, told: Told) -> list[str]:
    """Return what the trainer cannot express of the run, and what it does otherwise; what a user has to know comes first."""
    notes = []
    title = exporter.title
    if told.scratch and exporter.trains:
        notes.append(
            f"The run began with a model from a config, which {title} cannot do: its finished model is named instead. Put "
            "the model that you want in its place."
        )
    notes.append(
        f"{title} counts rows, not tokens. The shares of tokens follow as far as a task's rows are as long, on average, as "
        "those that the run drew."
    )
    if told.moved is not None and told.moved >= _STILL:
        notes.append(
            f"The run's mixture moved: up to {told.moved:.0%} of its draws changed task while it trained. Handed on is its "
            "average over the tokens, in no order, which is not what was trained."
        )
    if told.weights != "uniform":
        notes.append(
            f"The run weighed its examples ('weights.type: {told.weights}'), which {title} cannot: the table has the mean "
            "weight of each task."
        )
    if told.cuts:
        notes.append(
            f"The run cut the thinking of {told.cuts:.0%} of its train examples at a random place ('thinking.cuts'). The "
            "rows here are whole."
        )
    if told.capped and not exporter.exact:
        notes.append(
            f"The run's caps on epochs, of {_listed(told.capped)}, are not kept here: its shares respect them on average."
        )
    if told.undrawn:
        notes.append(f"Nothing was drawn of {_listed(told.undrawn)}: left out.")
    if exporter.trains:
        notes.append(
            f"In the run each example counted alike in a step's loss. {title} averages over tokens, so that long answers "
            "count more."
        )
        if handed.shape != "text":
            notes.append(
                f"What is over {handed.max_length} tokens loses its end there; the run cut the middle out of the prompt."
            )
        notes.append("Batches are those of one process: divide them where you start several.")
    if told.tokenizer is not None and exporter.trains:
        notes.append(f"The run's tokenizer was '{told.tokenizer}', which this config does not name.")
    if told.unsaid and exporter.trains:
        notes.append(f"Set in the recipe's 'training' and not handed on: {', '.join(told.unsaid)}.")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"
