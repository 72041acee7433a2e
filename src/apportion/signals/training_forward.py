"""What the model makes of a micro-batch in training itself, kept as it passes by, and the losses of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apportion.models.output import taken
from apportion.tasks.batches import Batch


@contextmanager
def made_by(model: nn.Module) -> Iterator[list[Any]]:
    """Within the block, what each forward pass of the model returns is added to the yielded list.

    Args:
        model: One that `models.output.read` can call, or its wrapper.

    Cost: none of its own.
    """
    made: list[Any] = []
    inner: nn.Module = getattr(model, "module", model)  # several processes wrap it
    handle = inner.register_forward_hook(lambda module, args, output: made.append(output))
    try:
        yield made
    finally:
        handle.remove()


def token_losses(made: Any, batch: Batch) -> Tensor:  # noqa: ANN401
    """Return the loss of each supervised token, (S,), detached, in fp32 (fp64 for fp64 logits), without the penalty.

    Args:
        made: What a model returned for the batch.
        batch: The batch, on any device.
    """
    logits = taken(made, batch.to(made.logits.device)).logits.detach()
    raised = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(raised, batch.targets.to(logits.device), reduction="none")


def sums_by_task(losses: Tensor, batch: Batch, n_tasks: int) -> Tensor:
    """Return the sum over each task's supervised tokens of their ``losses`` (S,), and how many these are: (2, T) float64."""
    tasks = batch.tasks.to(losses.device)[batch.examples.to(losses.device)]
    each = torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)])
    return each.new_zeros(2, n_tasks).index_add(1, tasks, each)
