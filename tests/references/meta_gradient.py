"""Slow, literal: one backward pass per task, one per example, and finite differences through the optimizer's step."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from apportion.signals.meta_gradient import trainable


def one_example_loss(model, batch, k):
    n = int(batch.attention_mask[k].sum())
    logits = model(input_ids=batch.input_ids[k : k + 1, :n], attention_mask=batch.attention_mask[k : k + 1, :n]).logits[
        0
    ]
    width = batch.input_ids.shape[1]
    mine = batch.examples == k
    return F.cross_entropy(logits[batch.positions[mine] - k * width], batch.targets[mine])


def task_mean(model, batch, task):
    return torch.stack([one_example_loss(model, batch, k) for k in range(len(batch)) if batch.tasks[k] == task]).mean()


def flat(gradients):
    return torch.cat([g.reshape(-1) for g in gradients])


def gradient(model, loss):
    return flat(torch.autograd.grad(loss, list(trainable(model).values()), materialize_grads=True))


def token_mean(model, batch, task):
    width, rows = batch.input_ids.shape[1], [k for k in range(len(batch)) if batch.tasks[k] == task]
    total = sum(one_example_loss(model, batch, k) * int((batch.examples == k).sum()) for k in rows)
    del width
    return total / sum(int((batch.examples == k).sum()) for k in rows)


def objective(model, validation, n_tasks, tau):
    v = torch.stack([token_mean(model, validation, j) for j in range(n_tasks)])
    return tau * torch.log(torch.exp(v / tau).mean())


def objective_after_step(model, train, validation, p, inner, tau, n_targets=None):
    """J at theta - lr * U(sum_i p_i g_i), by really moving the parameters and moving them back.

    Of ``n_targets`` losses, as many as tasks where it is None.
    """
    theta = trainable(model)
    loss = sum(p[i] * task_mean(model, train, i) for i in range(len(p)) if p[i] != 0)
    gradients = torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)
    before = {name: parameter.detach().clone() for name, parameter in theta.items()}
    with torch.no_grad():
        for (name, parameter), g in zip(theta.items(), gradients, strict=True):
            parameter.sub_(inner.lr * inner.update(name, g))
        value = objective(model, validation, n_targets or len(p), tau)
        for name, parameter in theta.items():
            parameter.copy_(before[name])
    return value


def finite_difference(model, train, validation, p, inner, tau, n_targets=None, h=1e-5):
    """-dJ/dp by central differences, p moved off the simplex one entry at a time."""
    out = torch.zeros_like(p)
    for i in range(len(p)):
        step = torch.zeros_like(p)
        step[i] = h
        up = objective_after_step(model, train, validation, p + step, inner, tau, n_targets)
        down = objective_after_step(model, train, validation, p - step, inner, tau, n_targets)
        out[i] = -(up - down) / (2 * h)
    return out
