"""Probes, literally: a copy of everything for each task, one example at a time."""

import copy

import torch

from apportion.signals.losses import example_nll
from apportion.tasks.validation import batched


def mean_loss(model, example):
    sums, counts = example_nll(model, batched([example], 1, 0)[0])
    return sums[0] / counts[0]


def target_losses(model, examples, n_targets):
    """Each target's mean loss over all its supervised tokens."""
    sums, counts = [0.0] * n_targets, [0.0] * n_targets
    for example in examples:
        with torch.no_grad():
            nll, count = example_nll(model, batched([example], 1, 0)[0])
        sums[example[0]] += float(nll[0])
        counts[example[0]] += float(count[0])
    return torch.tensor([s / c for s, c in zip(sums, counts, strict=True)], dtype=torch.float64)


def gain(model, optimizer, steps, told, n_targets, objective):
    """What the steps, each a list of examples, take off the objective of the losses on ``told``."""
    tried = copy.deepcopy(model)
    followed = type(optimizer)(tried.parameters(), lr=1.0)
    followed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = float(objective(target_losses(model, told, n_targets)))
    for examples in steps:
        followed.zero_grad()
        (sum(mean_loss(tried, example) for example in examples) / len(examples)).backward()
        torch.nn.utils.clip_grad_norm_(tried.parameters(), 1.0)
        followed.step()
    return before - float(objective(target_losses(tried, told, n_targets)))
