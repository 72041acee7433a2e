"""Slow, literal: F as a function of the logits, drawn rates, floor and prior written out, differentiated by autograd."""

from __future__ import annotations

import torch


def mixture(logits, prior, floor):
    """p_i = (1 - f) exp(w_i + b_i) / sum_k exp(w_k + b_k) + f / T."""
    powers = torch.exp(logits + prior)
    return (1 - floor) * powers / powers.sum() + floor / len(logits)


def rates(p, lengths):
    """r_i, the rates that examples are drawn at so that p_i is task i's share of the tokens."""
    return (p / lengths) / (p / lengths).sum()


def objective(logits, prior, floor, lengths, slopes, entropy):
    """F = J - lambda H(p), J to first order in the step: J_0 - sum_i r_i slope_i, slope_i = eta <g_i, u>."""
    p = mixture(logits, prior, floor)
    drawn = p if lengths is None else rates(p, lengths)
    return -(drawn * slopes).sum() - entropy * -(p * torch.log(p)).sum()


def gradient(logits, prior, floor, lengths, slopes, entropy):
    """dF/dw."""
    w = logits.clone().requires_grad_()
    objective(w, prior, floor, lengths, slopes, entropy).backward()
    return w.grad
