"""From mixtures and their losses to a prediction of others, and how well it ranks those that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apportion._errors import ApportionError

# Trials are held out in so many parts, one after the other.
PARTS = 4
PENALTIES = tuple(10.0**power for power in range(-6, 3))
MOST_TREES, PATIENCE = 2000, 50
TREES = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 2,
    "min_data_in_leaf": 5,
    "min_data_in_bin": 1,
    "feature_pre_filter": False,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}

Predict = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray, np.random.Generator], Predict]


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, from 0, equal ones sharing the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[where]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of two sequences, 0 where one of them is constant."""
    x, y = ranks(a) - (len(a) - 1) / 2, ranks(b) - (len(b) - 1) / 2
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else 0.0


def spread(p: np.ndarray) -> np.ndarray:
    """Return sum_i sqrt(p_i) of each mixture, (n,): from 1 for a single task to sqrt(T) for all alike."""
    return np.sqrt(p).sum(1)


def fit_spread(p: np.ndarray, losses: np.ndarray, seed: np.random.Generator) -> Predict:
    """Return the prediction of a line in `spread`; arguments are those of `fit_ridge`.

    Each further token of a task tells less than the one before, so what is common to all tasks is how widely a mixture
    spreads. Neither a line in the shares nor trees find that from tens of mixtures.
    """
    along = np.stack([np.ones(len(p)), spread(p)], 1)
    start, slope = np.linalg.lstsq(along, losses, rcond=None)[0]
    return lambda mixtures: start + slope * spread(mixtures)


def fit_ridge(p: np.ndarray, losses: np.ndarray, seed: np.random.Generator) -> Predict:
    """Return the prediction of ridge regression, its penalty the one of `PENALTIES` with the least leave-one-out error.

    Args:
        p: Mixtures, (n, T).
        losses: Their losses, (n,).
        seed: Unused: nothing is drawn.
    """
    centre, mean = p.mean(0), losses.mean()
    left, sizes, right = np.linalg.svd(p - centre, full_matrices=False)
    along = left.T @ (losses - mean)

    def error(penalty: float) -> float:
        shrunk = sizes**2 / (sizes**2 + penalty)
        leverage = (left**2) @ shrunk + 1 / len(p)
        return float(np.mean(((losses - mean - left @ (shrunk * along)) / np.maximum(1 - leverage, 1e-9)) ** 2))

    penalty = min(PENALTIES, key=error)
    slopes = right.T @ (sizes / (sizes**2 + penalty) * along)
    return lambda mixtures: mean + (mixtures - centre) @ slopes


def load_lightgbm() -> Any:  # noqa: ANN401
    """Return the module.

    Raises:
        ApportionError: It is not installed.
    """
    try:
        import lightgbm
    except (ImportError, OSError):  # the latter where the system lacks its library of threads
        raise ApportionError(
            "'mixture.fit: lightgbm' needs LightGBM: pip install 'apportion[regmix]', or set 'mixture.fit: linear'."
        ) from None
    return lightgbm


def fit_trees(p: np.ndarray, losses: np.ndarray, seed: np.random.Generator) -> Predict:
    """Return the prediction of boosted trees, stopped early on a fifth of the mixtures and then fitted to all of them.

    Args:
        p: Mixtures, (n, T).
        losses: Their losses, (n,).
        seed: What the fifth is drawn by.

    Source: Liu et al. 2024, RegMix, arXiv 2407.01492, section 3.2.

    Raises:
        ApportionError: LightGBM is not installed.
    """
    lightgbm = load_lightgbm()

    def trained(rows: np.ndarray, rounds: int, stopping: np.ndarray | None = None) -> Any:  # noqa: ANN401
        data = lightgbm.Dataset(p[rows], losses[rows], params=TREES)
        if stopping is None:
            return lightgbm.train(TREES, data, rounds)
        judged = lightgbm.Dataset(p[stopping], losses[stopping], reference=data)
        early = lightgbm.early_stopping(PATIENCE, verbose=False)
        return lightgbm.train(TREES, data, rounds, valid_sets=[judged], callbacks=[early])

    order = seed.permutation(len(p))
    cut = max(len(p) // 5, 1)
    best = trained(order[cut:], MOST_TREES, order[:cut]).best_iteration
    model = trained(np.arange(len(p)), max(int(best), 1))
    return lambda mixtures: np.asarray(model.predict(mixtures))


# What each fit is made of: one after the other, each for what those before it leave.
FITS: Mapping[str, Sequence[Fit]] = {
    "lightgbm": (fit_spread, fit_ridge, fit_trees),
    "linear": (fit_spread, fit_ridge),
}


def fitted(fits: Sequence[Fit], p: np.ndarray, losses: np.ndarray, seed: np.random.Generator) -> Predict:
    """Return the sum of the predictions of ``fits``, each made for what those before it leave."""
    parts: list[Predict] = []
    for fit in fits:
        parts.append(fit(p, losses - sum(part(p) for part in parts), seed))
    return lambda mixtures: np.sum([part(mixtures) for part in parts], 0)


def held_out_correlation(fits: Sequence[Fit], p: np.ndarray, losses: np.ndarray, seed: np.random.Generator) -> float:
    """Return the rank correlation of the losses with what is predicted for each mixture by a fit that has not seen it.

    A quarter is held out at a time, and the correlation is over all of them.
    """
    predicted = np.empty(len(p))
    for part in np.array_split(seed.permutation(len(p)), PARTS):
        rest = np.setdiff1d(np.arange(len(p)), part)
        predicted[part] = fitted(fits, p[rest], losses[rest], seed)(p[part])
    return spearman(predicted, losses)
