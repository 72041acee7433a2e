"""Embeddings of a pool's texts by a sentence-transformers model, which need not be the one that is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apportion._errors import ApportionError
from apportion.budget.prices import Cost
from apportion.models.loading import quietly
from apportion.signals._pool import Look, PoolSignal, Shown, means_by_target
from apportion.signals.hidden_states import unit
from apportion.tasks.batches import Batch
from apportion.tasks.files import expand
from apportion.tasks.validation import Picked

# Texts that a plan looks at to say how many of that model's own tokens a pool has.
SAMPLED = 256


class PoolSentences(PoolSignal):
    """Shows ``embeddings`` (n, d), unit vectors, and ``anchors`` (V, d), the mean of each target's.

    Args:
        model: A folder, or a Hub name.

    Cost, charged to `select`: 2 N FLOPs for each of that model's own tokens, N its parameters but for the look-ups.
    """

    def __init__(self, model: str) -> None:
        self._name = model
        self._loaded: Any = None

    def price(self) -> Cost:
        """Return the cost over pool and targets, their tokens judged by a sample."""
        chunks = self.bench.pool.chunks
        every = math.ceil(len(self.bench.pool) / SAMPLED)
        sample = [item for at, item in enumerate(item for chunk in chunks for item in chunk) if at % every == 0]
        targets = self.target_examples()
        tokens = self._tokens(self._texts(sample)) / len(sample) * len(self.bench.pool)
        tokens += self._tokens(self._texts(targets))
        counted = self.bench.pool.cost(lambda work: 0.0)
        return Cost(counted.supervised, counted.processed, self._flops(tokens)) + Cost(
            float(sum(split.supervised[i] for _, split, i in targets)),
            float(sum(split.processed[i] for _, split, i in targets)),
        )

    def begin(self, look: Look) -> dict[str, Tensor]:
        """Embed the targets."""
        examples = self.target_examples()
        return {"anchors": means_by_target(self._embeddings(examples), examples, len(self.bench.targets))}

    def resume(self, look: Look, state: dict[str, Tensor]) -> None:
        """Take the anchors of before."""
        self._anchors = state["anchors"]

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Embed a chunk."""
        return Shown(embeddings=self._embeddings(chunk), anchors=self._anchors)

    def _embeddings(self, picked: Sequence[Picked]) -> Tensor:
        texts = self._texts(picked)
        found = self._model.encode(
            texts, batch_size=self.bench.batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        batches: list[Batch]
        batches, _ = self.laid_out(picked)
        self.charge(batches, self._flops(self._tokens(texts)))
        return unit(found.float().cpu())

    def _texts(self, picked: Sequence[Picked]) -> list[str]:
        return [self.bench.decode(split.example(i)[0]) for _, split, i in picked]

    def _tokens(self, texts: Sequence[str]) -> float:
        most = self._model.get_max_seq_length() or math.inf
        ids = self._model.tokenizer(list(texts))["input_ids"]
        return float(sum(min(len(one), most) for one in ids))

    def _flops(self, tokens: float) -> float:
        looked_up = sum(
            p.numel()
            for module in self._model.modules()
            if isinstance(module, torch.nn.Embedding)
            for p in module.parameters()
        )
        return 2.0 * (sum(p.numel() for p in self._model.parameters()) - looked_up) * tokens

    @property
    def _model(self) -> Any:  # noqa: ANN401
        if self._loaded is None:
            self._loaded = _load(self._name)
        return self._loaded


def _load(name: str) -> Any:  # noqa: ANN401
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ApportionError(
            "'selection.model' needs sentence-transformers: pip install 'apportion[embedding]'."
        ) from None
    folder = expand(name)
    if not folder.exists() and (name.startswith(("/", ".", "~", "$")) or name.count("/") > 1):
        raise ApportionError(f"There is no folder '{folder}' to load 'selection.model' from: check the path.")
    try:
        with quietly():
            return SentenceTransformer(str(folder) if folder.exists() else name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ApportionError(f"'selection.model' is '{name}', which does not load: {first}.") from None
