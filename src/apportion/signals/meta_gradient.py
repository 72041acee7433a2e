"""How much training on each task lowers the validation objective: two exact estimators and the objective's direction.

With theta' = theta - eta U(g), g = sum_i r_i g_i and u = grad J at theta' (for Adam taken elementwise through dU/dg),
dJ/dr_i = -eta <g_i, u>, r being the rates that examples are drawn at. Source: docs/adapt-mixtures.md; ADAPT mixtures,
arXiv 2512.04555. The third, nearly free estimator reads <g_k, u> by example from the training backward: `in_run.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from apportion._ranks import part_of, summed
from apportion.objectives._objective import BoundObjective
from apportion.signals.inner_step import InnerStep
from apportion.signals.losses import Parameters, example_losses, example_nll, mean_by_task, measuring, recomputing
from apportion.tasks.batches import Batch


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that training moves, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def train_losses(model: nn.Module, batch: Batch, parameters: Parameters, n_tasks: int) -> Tensor:
    """Return each task's mean over its examples of l_k, (T,)."""
    losses = example_losses(model, batch, parameters)
    return mean_by_task(losses, torch.ones_like(losses), batch.tasks, n_tasks)


def validation_losses(model: nn.Module, batch: Batch, parameters: Parameters | None, n_tasks: int) -> Tensor:
    """Return v_j, each task's mean over its supervised tokens, (T,)."""
    sums, counts = example_nll(model, batch, parameters)
    return mean_by_task(sums, counts, batch.tasks, n_tasks)


def unrolled(
    model: nn.Module, train: Batch, validation: Batch, rates: Tensor, inner: InnerStep, objective: BoundObjective
) -> Tensor:
    """Return -dJ/dr, (T,), by autograd through the differentiable step: the literal reference.

    Args:
        model: The model at theta; only its trainable parameters move.
        train: Examples of the tasks with r > 0, whose mean losses give g_i.
        validation: Validation examples of all targets.
        rates: r, (T,).
        inner: The optimizer's next step.
        objective: What is lowered, of the targets' losses v, (V,).

    Cost: a forward and a double backward over ``train``, a forward and backward over ``validation``; charged by the caller
    to `meta`. Keeps the whole graph: about 2.5 times plain training's memory.
    """
    theta = trainable(model)
    with measuring(model), sdpa_kernel(SDPBackend.MATH):
        share = rates.detach().to(next(iter(theta.values()))).requires_grad_()
        mixed = (share * train_losses(model, train, theta, len(rates))).sum()
        gradients = torch.autograd.grad(mixed, list(theta.values()), create_graph=True, materialize_grads=True)
        moved = {
            name: parameter - inner.lr * inner.update(name, gradient)
            for (name, parameter), gradient in zip(theta.items(), gradients, strict=True)
        }
        reached = objective(validation_losses(model, validation, moved, len(objective)))
        (slope,) = torch.autograd.grad(reached, share)
    return -slope.detach()


def forward(
    model: nn.Module, train: Batch, validation: Batch, rates: Tensor, inner: InnerStep, objective: BoundObjective
) -> Tensor:
    """Return -dJ/dr, (T,), by one forward-mode pass of the task losses along u; exact, and no graph is kept.

    Arguments as for `unrolled`. Cost: a forward and backward over ``train`` (for g) and over ``validation`` (for u), and one
    forward-mode pass over ``train`` (about two forwards); charged by the caller to `meta`.
    """
    theta = trainable(model)
    with measuring(model), sdpa_kernel(SDPBackend.MATH):
        share = rates.to(next(iter(theta.values())))
        mixed = (share * train_losses(model, train, theta, len(rates))).sum()
        gradients = torch.autograd.grad(mixed, list(theta.values()), materialize_grads=True)
        g = dict(zip(theta, gradients, strict=True))
        moved = {
            name: (parameter - inner.lr * inner.update(name, g[name])).detach().requires_grad_()
            for name, parameter in theta.items()
        }
        reached = objective(validation_losses(model, validation, moved, len(objective)))
        slopes = torch.autograd.grad(reached, list(moved.values()), materialize_grads=True)
        u = {n: s * inner.derivative(n, g[n]) for (n, s) in zip(moved, slopes, strict=True)}
        here = {name: parameter.detach() for name, parameter in theta.items()}
        change = jvp(lambda at: train_losses(model, train, at, len(rates)), (here,), (u,))[1]
    return inner.lr * change.detach()


def direction(
    model: nn.Module, validation: Sequence[Batch], n_targets: int, objective: BoundObjective
) -> tuple[dict[str, Tensor], Tensor]:
    """Return u = grad J at theta by parameter name, and v, the targets' losses it was taken at, (V,).

    Several batches need each target's final weight before any gradient, so they cost one more forward than a single one.
    The batches are shared out among the ranks, which all call this and all get the result.

    Cost: a forward and backward over ``validation``, and a forward more if there are several batches; charged by the
    caller to `meta`.
    """
    theta = trainable(model)
    mine = part_of(validation)
    total = {name: torch.zeros_like(parameter) for name, parameter in theta.items()}
    here = next(iter(theta.values()))
    losses, tokens = here.new_zeros(2, n_targets, dtype=torch.promote_types(here.dtype, torch.float32)).unbind()
    recompute = bool(getattr(model, "is_activation_checkpointing", False))
    with recomputing(model) if recompute else measuring(model):
        if len(validation) == 1:
            if mine:
                losses = validation_losses(model, mine[0], None, n_targets)
                gradients = torch.autograd.grad(objective(losses), list(theta.values()), materialize_grads=True)
                total = dict(zip(theta, gradients, strict=True))
            return {name: summed(gradient) for name, gradient in total.items()}, summed(losses.detach())
        with torch.no_grad():
            for batch in mine:
                sums, counts = example_nll(model, batch)
                losses.index_add_(0, batch.tasks, sums)
                tokens.index_add_(0, batch.tasks, counts)
            tokens = summed(tokens).clamp(min=1)
            losses = summed(losses) / tokens
            scale = objective.emphasis(losses) / tokens
        for batch in mine:
            sums, _ = example_nll(model, batch)
            weighted = (scale[batch.tasks] * sums).sum()
            gradients = torch.autograd.grad(weighted, list(theta.values()), materialize_grads=True)
            for name, gradient in zip(theta, gradients, strict=True):
                total[name] += gradient
        return {name: summed(gradient) for name, gradient in total.items()}, losses
