"""The texts of a pool and of the targets, and what is counted over them: no model is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apportion.signals._pool import Lexicon, PoolSignal, Shown
from apportion.tasks.validation import Picked


class PoolTerms(PoolSignal):
    """Shows ``texts`` and the pool's ``lexicon``; terms are the tokenizer's tokens, of prompt and completion.

    Cost: nothing to the ledger; the pool is read twice, once to count.
    """

    def survey(self) -> None:
        """Count the pool's terms, chunk by chunk: counts add, and no text is kept."""
        asked = [[split.example(i)[0] for _, split, i in items] for items in self.bench.targets.steer]
        terms = 1 + max((int(ids.max()) for texts in asked for ids in texts), default=0)
        holding, tokens = np.zeros(terms, np.int64), 0
        for chunk in self.bench.pool.chunks:
            for _, split, i in chunk:
                ids = split.example(i)[0]
                tokens += len(ids)
                held = np.unique(ids)
                holding[held[held < terms]] += 1  # a term that no target asks for adds to no score
        counts = [
            sum((np.bincount(ids, minlength=terms) for ids in texts), np.zeros(terms, np.int64)) for texts in asked
        ]
        means = np.stack([count / max(len(texts), 1) for count, texts in zip(counts, asked, strict=True)])
        self._lexicon = Lexicon(len(self.bench.pool), tokens, holding, means)

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Show the texts of a chunk."""
        return Shown(texts=[split.example(i)[0] for _, split, i in chunk], lexicon=self._lexicon)
