"""Losses by example and by task, in fp32 (fp64 for an fp64 model)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apportion._ranks import part_of, summed
from apportion.models.output import Parameters, read
from apportion.tasks.batches import Batch


def example_nll(model: nn.Module, batch: Batch, parameters: Parameters | None = None) -> tuple[Tensor, Tensor]:
    """Return each example's summed negative log-likelihood and its number of supervised tokens, both (B,).

    Arguments and cost are those of `models.output.read`. Only supervised positions are raised to fp32.
    """
    return _sums(read(model, batch, parameters).logits, batch)


def _sums(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    nll = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), batch.targets, reduction="none")
    zeros = nll.new_zeros(len(batch))
    counts = zeros.index_add(0, batch.examples, torch.ones_like(nll))
    return zeros.index_add(0, batch.examples, nll), counts


def example_losses(model: nn.Module, batch: Batch, parameters: Parameters | None = None) -> Tensor:
    """Return l_k, each example's mean loss over its supervised tokens and the model's penalty, (B,)."""
    losses, penalty = parted_losses(model, batch, parameters)
    return losses if penalty is None else losses + penalty


def parted_losses(model: nn.Module, batch: Batch, parameters: Parameters | None = None) -> tuple[Tensor, Tensor | None]:
    """Return each example's mean loss over its supervised tokens, (B,), and apart from it the model's penalty."""
    output = read(model, batch, parameters)
    sums, counts = _sums(output.logits, batch)
    return sums / counts.clamp(min=1), output.penalty


def mean_by_task(sums: Tensor, counts: Tensor, tasks: Tensor, n_tasks: int) -> Tensor:
    """Return sum over a task of ``sums`` divided by sum of ``counts``, (T,); 0 for a task that is absent."""
    zeros = sums.new_zeros(n_tasks)
    return zeros.index_add(0, tasks, sums) / zeros.index_add(0, tasks, counts.to(sums.dtype)).clamp(min=1)


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode for the block: no dropout, so a measurement has no noise of its own."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def example_sums(model: nn.Module, batches: Sequence[Batch], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return each example's summed negative log-likelihood and supervised tokens, (N,) float64 on the CPU.

    N examples, in the order of ``batches``. The batches are shared out among the ranks, which all call this; a rank's
    result has zeros where another rank measured, so that `summed` puts them together.

    Cost: one forward pass over the batches, without gradient; the caller charges it.
    """
    sums, counts = (torch.zeros(sum(map(len, batches)), dtype=torch.float64) for _ in range(2))
    ends = torch.tensor([0, *map(len, batches)]).cumsum(0).tolist()
    with measuring(model), torch.no_grad():
        for start, batch in part_of(list(zip(ends[:-1], batches, strict=True))):
            nll, tokens = example_nll(model, batch.to(device))
            sums[start : start + len(batch)] = nll.double().cpu()
            counts[start : start + len(batch)] = tokens.double().cpu()
    return sums, counts


def means_by_task(sums: Tensor, counts: Tensor, batches: Sequence[Batch], n_tasks: int) -> Tensor:
    """Return v_j, (T,) float64, from what `example_sums` returned for ``batches`` on each of the ranks."""
    tasks = torch.cat([batch.tasks for batch in batches]) if batches else torch.zeros(0, dtype=torch.int64)
    # A rank's zeros change no sum, to the last bit, and its sums meet the other ranks' as single numbers by task.
    zeros = torch.zeros(n_tasks, dtype=torch.float64)
    return summed(zeros.index_add(0, tasks, sums)) / summed(zeros.index_add(0, tasks, counts)).clamp(min=1)


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """As `measuring`, for a model that recomputes activations in the backward pass: layers do so in training mode only.

    Each layer that recomputes stays in that mode, all within it does not, and dropout that the layer does by itself is off.
    """
    modes = {module: module.training for module in model.modules()}
    layers = [module for module in modes if getattr(module, "gradient_checkpointing", False)]
    rates = [
        (layer, key, p) for layer in layers for key, p in vars(layer).items() if "drop" in key and isinstance(p, float)
    ]
    model.eval()
    for layer in layers:
        layer.training = True
    for layer, key, _ in rates:
        setattr(layer, key, 0.0)
    try:
        yield
    finally:
        for layer, key, p in rates:
            setattr(layer, key, p)
        for module, mode in modes.items():
            module.training = mode


def task_losses(model: nn.Module, batches: Sequence[Batch], n_tasks: int, device: torch.device | str) -> Tensor:
    """Return v_j, each task's mean loss over all supervised tokens in ``batches``, (T,) float64 on the CPU.

    The batches are shared out among the ranks, which all call this and all get the result.

    Cost: one forward pass over the batches, without gradient; the caller charges it.
    """
    sums, counts = example_sums(model, batches, device)
    return means_by_task(sums, counts, batches, n_tasks)
