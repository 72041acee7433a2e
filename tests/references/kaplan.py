"""FLOPs of published selection experiments by their own convention, so that their tables can be recomputed."""

from __future__ import annotations

from typing import Literal

TOKENS_A_SAMPLE = 2048
"""The tables price every sample as this many tokens."""

Method = Literal["random", "bm25", "embedding", "perplexity", "less"]


def kaplan(method: Method, *, parameters: int, samples: int, epochs: float, pool: int = 0) -> float:
    """Price a selection experiment by the papers' convention, so that published tables can be recomputed.

    Training costs 6N a token and a forward pass 2N, every sample counts 2,048 tokens, nothing else is counted:
    random and bm25 2048 * 6N * D * E; embedding and perplexity 2048 * 2N * P more; LESS 1.53 * 2048 * 6N * P more.

    Args:
        method: How the samples were selected.
        parameters: N, all of the model's.
        samples: D, the samples trained on in each epoch.
        epochs: E.
        pool: P, the samples that were scored.

    Raises:
        ValueError: Unknown method.
    """
    scoring = {"random": 0.0, "bm25": 0.0, "embedding": 2.0, "perplexity": 2.0, "less": 1.53 * 6.0}
    if method not in scoring:
        raise ValueError(f"Unknown method '{method}'; known: {', '.join(scoring)}.")
    return float(TOKENS_A_SAMPLE * parameters * (6.0 * samples * epochs + scoring[method] * pool))
