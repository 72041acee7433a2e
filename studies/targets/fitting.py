"""Losses as a log-linear law of the mixture, and the mixture at which the law is lowest; NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The law's floor as a share of the lowest loss that was seen, and the weight of small coefficients.
FLOORS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97)
RIDGE = 1e-2
# What it costs to leave the best mixture that was run, in shares of its loss for each nat of KL.
KL = 0.05
STEPS, RATE = 3000, 0.05
SMALLEST = 1e-4


@dataclass(frozen=True)
class Law:
    """A loss as c + exp(a + b.x), x a mixture, or several one after another, (D,).

    Attributes:
        floor: c.
        level: a.
        slopes: b, (D,).
        error: Root mean square error of the loss where it was left out of the fit.
    """

    floor: float
    level: float
    slopes: np.ndarray
    error: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """Return the losses at mixtures (..., D)."""
        return np.asarray(self.floor + np.exp(self.level + x @ self.slopes))


def law_of(x: np.ndarray, losses: np.ndarray) -> Law:
    """Return the law with the floor at which losses that are left out, one at a time, are told best.

    Args:
        x: Mixtures, (n, D).
        losses: Of each, (n,), above zero.
    """
    laws = [_with_floor(x, losses, share * float(losses.min())) for share in FLOORS]
    return min(laws, key=lambda law: law.error)


def _with_floor(x: np.ndarray, losses: np.ndarray, floor: float) -> Law:
    ones = np.column_stack([np.ones(len(x)), x])
    penalty = RIDGE * np.eye(ones.shape[1])
    penalty[0, 0] = 0.0
    y = np.log(losses - floor)
    gram = ones.T @ ones + penalty
    coefficients = np.linalg.solve(gram, ones.T @ y)
    # Leaving one out of a ridge regression moves its prediction by the residual over one minus its leverage.
    leverage = np.einsum("ij,ji->i", ones, np.linalg.solve(gram, ones.T))
    left_out = y - (y - ones @ coefficients) / np.clip(1 - leverage, SMALLEST, None)
    error = float(np.sqrt(np.mean((floor + np.exp(left_out) - losses) ** 2)))
    return Law(floor, float(coefficients[0]), coefficients[1:], error)


def lowest(laws: list[Law], best: np.ndarray, parts: int = 1) -> np.ndarray:
    """Return the mixture with the lowest mean J of the laws, plus `KL` times J(best) times KL(x || best), (D,).

    Args:
        laws: One a target.
        best: The best mixture that was run, (D,).
        parts: How many mixtures x is, one after another.
    """
    start = np.clip(best, SMALLEST, None).reshape(parts, -1)
    start = start / start.sum(1, keepdims=True)
    scale = float(np.mean([law.at(start.ravel()) for law in laws]))
    x = start.copy()
    for _ in range(STEPS):
        flat = x.ravel()
        slope = np.mean([(law.at(flat) - law.floor) * law.slopes for law in laws], axis=0) / scale
        gradient = slope.reshape(parts, -1) + KL * (np.log(x / start) + 1)
        x = x * np.exp(-RATE * (gradient - gradient.mean(1, keepdims=True)))
        x = np.clip(x / x.sum(1, keepdims=True), 1e-12, None)
    return np.asarray((x / x.sum(1, keepdims=True)).ravel())


def dirichlets(count: int, sources: int, seed: int) -> np.ndarray:
    """Return ``count`` mixtures of ``sources``, (count, sources), from nearly even ones to nearly single sources."""
    rng = np.random.default_rng([seed, sources])
    return np.stack([rng.dirichlet(np.full(sources, 10 ** rng.uniform(-1, 0.3))) for _ in range(count)])


def pairs(count: int, around: np.ndarray, seed: int) -> np.ndarray:
    """Return ``count`` times two mixtures one after another, (count, 2 T), each between ``around`` (T,) and anything."""
    rng = np.random.default_rng([seed, len(around), 2])

    def one() -> np.ndarray:
        away = rng.uniform(0, 1)
        return np.asarray((1 - away) * around + away * rng.dirichlet(np.full(len(around), 0.3)))

    return np.stack([np.concatenate([one(), one()]) for _ in range(count)])
