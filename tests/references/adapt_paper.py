"""Slow, literal: the whole plain method of ADAPT mixtures (arXiv 2512.04555), logit by logit.

p = softmax(w), theta' = theta - eta U(sum_i p_i g_i), J = tau log( (1/T) sum_j exp(v_j(theta') / tau) ), F = J - lambda H(p)
and w <- w - beta step(dF/dw), the gradient by autograd through the softmax, the optimizer's step and J.
"""

from __future__ import annotations

import math

import torch


def objective(losses, tau):
    """J."""
    return tau * torch.log(torch.exp(losses / tau).mean())


def entropy(p):
    """H(p)."""
    return -(p * torch.log(p)).sum()


def gradient(w, theta, train_losses, target_losses, update, tau, bonus):
    """dF/dw at logits ``w`` (T,), theta a list of tensors.

    Args:
        train_losses: Of theta, the tasks' mean losses (T,).
        target_losses: Of theta, the targets' losses (V,).
        update: Of theta's gradients, what the optimizer's step subtracts, learning rate included.
    """
    w = w.clone().requires_grad_()
    p = torch.exp(w) / torch.exp(w).sum()
    mixed = (p * train_losses(theta)).sum()
    gradients = torch.autograd.grad(mixed, theta, create_graph=True, materialize_grads=True)
    moved = [parameter - step for parameter, step in zip(theta, update(gradients), strict=True)]
    value = objective(target_losses(moved), tau) - bonus * entropy(p)
    return torch.autograd.grad(value, w)[0]


def plain(w, gradients, size):
    """The logits after plain steps along a list of gradients, one task after the other."""
    path = [float(x) for x in w]
    for g in gradients:
        path = [x - size * float(d) for x, d in zip(path, g, strict=True)]
    return path


def adam(w, gradients, size):
    """The logits after Adam's steps, algorithm 1 of arXiv 1412.6980 with its usual constants."""
    path = [float(x) for x in w]
    m, v = [0.0] * len(path), [0.0] * len(path)
    for t, g in enumerate(gradients, start=1):
        for i, d in enumerate(float(x) for x in g):
            m[i] = 0.9 * m[i] + 0.1 * d
            v[i] = 0.999 * v[i] + 0.001 * d * d
            path[i] -= size * (m[i] / (1 - 0.9**t)) / (math.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
    return path


STEPS = {"plain": plain, "adam": adam}
