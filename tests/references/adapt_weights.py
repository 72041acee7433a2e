"""Slow, literal: algorithm 1 of ADAPT weights (arXiv 2605.05227), line by line; one example at a time, nothing padded."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

EPSILON = 1e-8


def forward(model, ids):
    """Return logits (L, V) and last-layer hidden states (L, d) of one sequence of token ids."""
    output = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return output.logits[0], output.hidden_states[-1][0]


def embedding(states, places):
    """Lines 8-10 and 15-17: position weights, weighted sum, normalisation, over the given places."""
    whole = sum(range(1, len(places) + 1))
    phi = torch.zeros(states.shape[1])
    for rank, place in enumerate(places, start=1):
        phi = phi + (rank / whole) * states[place]
    return phi / max(float(phi.norm()), EPSILON)


def places_of(labels, positions):
    """Which places of a sequence are pooled; the paper pools all."""
    return [t for t, label in enumerate(labels) if positions == "all" or (label >= 0) == (positions == "completion")]


def example_loss(logits, labels):
    """The mean over supervised tokens of -log p(token | those before it)."""
    losses = [F.cross_entropy(logits[t - 1], torch.tensor(labels[t])) for t in range(1, len(labels)) if labels[t] >= 0]
    return torch.stack(losses).mean()


def algorithm_1(model, steps, anchors, *, tau, refresh, learning_rate, positions="all", centred=False, normalise=False):
    """Train ``model`` in place by plain SGD and return each step's weights.

    Args:
        model: A causal language model.
        steps: The mini-batches B_1 ... B_T, each a list of (ids, labels), labels -100 where there is none.
        anchors: The validation set, as (ids, labels).
        tau: Temperature of the sigmoid.
        refresh: R.
        learning_rate: eta; here the sum over a mini-batch is divided by its examples, or by its weights (``normalise``).
        positions: Which tokens are pooled.
        centred: Subtract the anchors' mean cosine among themselves (not in the paper).
        normalise: Divide by the sum of the weights.
    """
    history = []
    embedded = []
    for t, batch in enumerate(steps, start=1):
        if (t - 1) % refresh == 0:  # t mod R = 1; and every step for R = 1
            model.eval()
            with torch.no_grad():
                embedded = [embedding(forward(model, ids)[1], places_of(labels, positions)) for ids, labels in anchors]
            model.train()
        model.zero_grad()
        weights, losses = [], []
        for ids, labels in batch:
            logits, states = forward(model, ids)
            phi = embedding(states.detach(), places_of(labels, positions))
            score = sum(float(torch.dot(phi, other)) for other in embedded) / len(embedded)
            if centred:
                score -= sum(float(torch.dot(a, b)) for a in embedded for b in embedded) / len(embedded) ** 2
            weights.append(1 / (1 + math.exp(-score / max(tau, EPSILON))))
            losses.append(example_loss(logits, labels))
        whole = sum(weights) if normalise else len(batch)
        (sum(w * loss for w, loss in zip(weights, losses, strict=True)) / whole).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(learning_rate * parameter.grad)
        history.append(weights)
    return history
