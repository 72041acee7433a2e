"""Deduplication as reweighting: near-duplicates share one weight in place of being dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar
from zlib import crc32

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from apportion._errors import ApportionError
from apportion.signals._records import Seen, Texts
from apportion.signals.pool_texts import PoolTexts
from apportion.weights._weighting import Weighting

SEED = 1
# What the bands miss nobody finds, and what they find too much of is compared anyway. At a threshold of 0.8 they find
# 87 % of the pairs that are just as alike, and 99.9 % of those at 0.9.
MISSED, FOUND_IN_VAIN = 0.9, 0.1


def signatures(pool: Texts, shingle: int, threshold: float, permutations: int) -> tuple[np.ndarray, list[list[int]]]:
    """Return the MinHash signatures of the texts, (n, permutations), and the buckets of candidates that LSH puts them in.

    A text's set is that of its runs of ``shingle`` tokens; a shorter text is one run. Two signatures agree at a place
    with the probability of |A & B| / |A | B|, the sets' Jaccard similarity. Every text is read once, by itself.
    Source: Broder 1997, On the resemblance and containment of documents; datasketch's MinHash and MinHashLSH.

    Raises:
        ApportionError: datasketch is not installed, or there are too few permutations for bands at this threshold.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise ApportionError("'weights.type' duplicates needs datasketch: pip install 'apportion[minhash]'.") from None
    try:
        bands = MinHashLSH(threshold, permutations, weights=(FOUND_IN_VAIN, MISSED))
    except ValueError:
        raise ApportionError(
            f"'weights.permutations' is {permutations}, too few for a 'weights.threshold' of {threshold:g}: "
            "raise the one or lower the other."
        ) from None
    sketch, made = MinHash(permutations, seed=SEED, hashfunc=crc32), []
    for number, ids in enumerate(pool):
        sketch.update_batch(np.lib.stride_tricks.sliding_window_view(ids, min(shingle, len(ids))))
        bands.insert(number, sketch, check_duplication=False)
        made.append(sketch.hashvalues)
        sketch.clear()
    buckets = [sorted(table.get(key)) for table in bands.hashtables for key in table.keys()]  # noqa: SIM118
    return np.stack(made), buckets


def clusters(made: np.ndarray, buckets: Iterable[list[int]], threshold: float) -> np.ndarray:
    """Return the number of each text's cluster, (n,) int64, one of its members.

    Clusters are the connected components of the pairs that share a bucket and whose signatures agree in at least
    ``threshold`` of their places. Pairs of one cluster already are not compared, so that a bucket of near-duplicates
    costs its size and not its square.
    """
    parents = np.arange(len(made))

    def root(text: int) -> int:
        while parents[text] != text:
            parents[text] = text = parents[parents[text]]
        return text

    for bucket in buckets:
        members = np.array(bucket)
        roots = np.array([root(text) for text in bucket])
        for place, text in enumerate(bucket):
            apart = np.flatnonzero(roots != roots[place])
            if not len(apart):
                break
            near = (made[members[apart]] == made[text]).mean(1) >= threshold
            joined = np.isin(roots, roots[apart[near]])
            parents[roots[joined]] = roots[joined] = roots[place]
    return np.array([root(text) for text in range(len(made))])


class Duplicates(Weighting):
    """Weights by how many near-duplicates an example has: w = 1 / its cluster's size, so that a cluster counts as one.

    What it optimises: sum_k w_k l_k / N over the N examples of a step. Over an epoch that is the sum over clusters of
    their mean loss, whatever the order; the weights never change. It is not divided by sum_k w_k: a step of one cluster
    would then count in full.
    Shapes: n examples of all train splits, of all tasks together; one signature each, (permutations,) uint32.
    Cost: no pass of the model, nothing to the ledger; before training 0.3 ms and 5 KB an example.
    References: Zhao et al. (arXiv 2605.05227), who leave deduplication as reweighting for later; Lee et al. 2022
    (arXiv 2107.06499), runs of 5; Broder 1997, MinHash.
    Departures: nothing is dropped; the estimated similarity decides, where Lee et al. look at the edit similarity as well.
    Relations: `uniform` where nothing is repeated.

    Attributes:
        shingle: Tokens in a run; longer runs make texts less alike.
        threshold: Jaccard similarity of two examples' runs from which on they are near-duplicates.
        permutations: Places of a signature; the similarity's standard error is 0.035 at 128 and 0.8.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = {
        "alike": "Lower weights.threshold; if there are no near-duplicates this is training without weights.",
    }
    shingle: int = Field(5, ge=1)
    threshold: float = Field(0.8, gt=0, lt=1)
    permutations: int = Field(128, ge=2)

    def needs(self) -> tuple[PoolTexts]:
        """Ask for the texts."""
        return (PoolTexts(self),)

    def weigh(self, seen: Seen) -> Tensor:
        """Return w for every example of the pool, (n,) float32.

        Raises:
            ApportionError: datasketch is missing, or the permutations are too few.
        """
        made, buckets = signatures(seen.texts, self.shingle, self.threshold, self.permutations)
        _, cluster, sizes = np.unique(clusters(made, buckets, self.threshold), return_inverse=True, return_counts=True)
        return torch.from_numpy(1 / sizes[cluster]).float()
