"""What a model makes of a batch, however it takes one: the one place where a model is called on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from apportion.tasks.batches import Batch

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Output:
    """``logits`` (S, V) at a batch's supervised positions; ``penalty`` (B,) to add to its examples' losses, or None."""

    logits: Tensor
    penalty: Tensor | None = None


def read(model: nn.Module, batch: Batch, parameters: Parameters | None = None) -> Output:
    """Return what a model makes of a batch.

    Args:
        model: A transformers causal language model, called with ids and mask; or one that declares ``takes_batches`` and
            returns an `Output` for a whole `Batch`.
        batch: The examples, on the model's device.
        parameters: Where given, the model is called with these in place of its own (for differentiation through them).

    Cost: one forward pass, which the caller charges.
    """
    whole = getattr(getattr(model, "module", model), "takes_batches", False)  # several processes wrap the model
    args, inputs = ((batch,), {}) if whole else ((), batch.model_inputs)
    made: Any = model(*args, **inputs) if parameters is None else functional_call(model, dict(parameters), args, inputs)
    return taken(made, batch)


def taken(made: Any, batch: Batch) -> Output:  # noqa: ANN401
    """Return what ``made``, a model's own return value for a batch, says of the batch's supervised positions."""
    return made if isinstance(made, Output) else Output(made.logits.flatten(0, 1)[batch.positions])
