"""BM25 weights: how many words an example and the anchors share, counted once before training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from apportion._errors import ApportionError
from apportion.signals._records import Seen
from apportion.signals.pool_texts import PoolTexts
from apportion.weights._weighting import Anchored, between, sigmoid_weights, too_sharp

# Lucene's idf, log(1 + (n - df + 0.5) / (df + 0.5)), is never negative.
K1, B = 1.5, 0.75


def index(pool: Iterable[np.ndarray], terms: int) -> dict[str, Any]:
    """Return bm25s' index of ``pool`` as a sparse matrix in columns by term: `data`, `indices`, `indptr`.

    Args:
        pool: Documents as term ids below ``terms``.
        terms: Size of the vocabulary.

    Raises:
        ApportionError: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise ApportionError("'weights.type' bm25 needs bm25s: pip install 'apportion[bm25]'.") from None
    built = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
    vocabulary = {term: term for term in range(terms)}
    built.index(([document.tolist() for document in pool], vocabulary), create_empty_token=False, show_progress=False)
    scores: dict[str, Any] = built.scores
    return scores


def mean_scores(matrix: dict[str, Any], queries: Sequence[np.ndarray], documents: int, terms: int) -> np.ndarray:
    """Return the mean over queries v of BM25(x, v) for every document x, (documents,) float64.

    BM25 is a sum over the query's terms, so the mean over queries is one product of the matrix with the queries' term
    counts added up, however many they are. Source: ADAPT weights, arXiv 2605.05227, equation 8.
    """
    asked = np.concatenate([query[query < terms] for query in queries])
    counts = np.bincount(asked, minlength=terms) / len(queries)
    per_term = np.diff(matrix["indptr"])
    return np.bincount(matrix["indices"], weights=matrix["data"] * np.repeat(counts, per_term), minlength=documents)


class Bm25(Anchored):
    """Weights by the words shared with the anchors: w = sigmoid(s / tau), s scaled to [0, 1] over the pool.

    What it optimises: as `adapt`, with weights that never change.
    Shapes: n examples of all train splits; one score each.
    Cost: no pass of the model, nothing to the ledger; some seconds of counting before training.
    References: Zhao et al. (arXiv 2605.05227), ADAPT-BM25; Lu 2024, BM25S (arXiv 2407.03618); k1 1.5, b 0.75.
    Departures: terms are the model's tokens, prompt and completion; scores are scaled by their smallest and largest.
    Relations: `adapt` without a model.
    """

    advice: ClassVar[Mapping[str, str]] = {"alike": "Lower weights.tau, or this is training without weights."}

    def needs(self) -> tuple[PoolTexts]:
        """Ask for the texts."""
        return (PoolTexts(self, anchors=self.anchors_asked),)

    def weigh(self, seen: Seen) -> Tensor:
        """Return w for every example of the pool, (n,) float32.

        Raises:
            ApportionError: bm25s is missing, no example shares a token with an anchor, or all weights are 0 or 1.
        """
        pool = seen.texts
        terms = 1 + max(int(ids.max()) for ids in pool)
        scores = mean_scores(index(pool, terms), seen.anchor_texts, len(pool), terms)
        if not scores.any():
            raise ApportionError(
                "No training example shares a token with an anchor: check 'weights.files', or use weights of another type."
            )
        scaled = torch.from_numpy(
            (scores - scores.min()) / max(float(np.ptp(scores)), np.finfo(np.float64).tiny)
        ).float()
        weights = sigmoid_weights(scaled, self.tau)
        raised = weights[scaled > 0]  # the smallest score is 0, and its weight one half at any tau
        if len(raised) and not between(raised).any():
            raise too_sharp(self.tau)
        return weights
