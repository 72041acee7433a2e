"""BM25: examples that share rare words with the targets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from apportion.selections._selection import Targeted
from apportion.signals._pool import Lexicon, Shown
from apportion.signals.pool_terms import PoolTerms

K1, B = 1.5, 0.75


def mean_bm25(texts: list[np.ndarray], lexicon: Lexicon) -> np.ndarray:
    """Return the mean over each target's examples v of BM25(x, v), (n, V) float64.

    With Lucene's idf, log(1 + (N - n_t + 0.5) / (n_t + 0.5)), and tf / (tf + k1 (1 - b + b |x| / mean |x|)). BM25 is a sum
    over the query's terms, so the mean over queries needs their term counts alone. Source: equation 1 of arXiv 2605.05227.
    """
    idf = np.log1p((lexicon.documents - lexicon.holding + 0.5) / (lexicon.holding + 0.5))
    asked = lexicon.asked * idf
    terms, mean = len(idf), lexicon.tokens / max(lexicon.documents, 1)
    lengths = np.array([len(ids) for ids in texts], np.int64)
    owners = np.repeat(np.arange(len(texts)), lengths)
    flat = np.concatenate(texts) if texts else np.zeros(0, np.int64)
    known = flat < terms
    pairs, counts = np.unique(owners[known] * terms + flat[known], return_counts=True)
    owner, term = np.divmod(pairs, terms)
    weight = counts / (counts + K1 * (1 - B + B * lengths[owner] / mean))
    return np.stack([np.bincount(owner, weight * row[term], minlength=len(texts)) for row in asked], axis=1)


class Bm25(Targeted):
    """Keeps examples with a high mean BM25 score over the targets' examples.

    What it optimises: nothing; shared words, rare ones above all.
    Shapes: n examples, V targets.
    Cost: no pass of the model, nothing to the ledger; the texts are read twice.
    References: Robertson and Zaragoza 2009; Silva and Barbosa 2024, as equation 1 of arXiv 2605.05227; k1 1.5, b 0.75.
    Departures: terms are the model's tokens, of prompt and completion.
    Relations: `weights.bm25` keeps all examples and weighs them by the same score.
    """

    def needs(self) -> tuple[PoolTerms]:
        """Ask for the texts."""
        return (PoolTerms(),)

    def score(self, shown: Shown) -> Tensor:
        """Return the mean scores, (n, V)."""
        assert shown.lexicon is not None
        return torch.from_numpy(mean_bm25(list(shown.texts), shown.lexicon)).float()
