"""The harness's own model for a transformers model that is already there, with every pass counted."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from apportion.budget.prices import Prices, Work

Request = tuple[tuple[str, str], list[int], list[int]]


@dataclass
class Tally:
    """What passes have worked on so far, as the ledger counts it."""

    supervised: int = 0
    processed: int = 0
    padded: int = 0
    flops: float = 0.0

    def taken(self) -> dict[str, Any]:
        """Return what was counted, and count from nothing again."""
        said = dict(vars(self))
        self.supervised = self.processed = self.padded = 0
        self.flops = 0.0
        return said


class Metered(HFLM):
    """Answers the harness's requests with a model that is not loaded again, and counts what that takes.

    Scoring a continuation is one pass over the text; continuations that differ in their last token share one, as the
    harness has it. ``supervised`` are the positions whose likelihood is read. Writing an answer of g tokens to a prompt of p
    is a pass of p positions and g - 1 of one each, every one over all positions before it; ``supervised`` are the g. What is
    computed for a row behind its end of text is padding.

    Args:
        model: Any transformers model; on the meta device, with ``dry``, it is only asked what it would take.
        tokenizer: Its.
        prices: Of its passes.
        batch_size: Rows of a pass.
        dry: Whether no pass is made: then scores are zeros, answers empty, and each answer is counted at its full length.

    Attributes:
        tally: What was counted.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prices: Prices,
        batch_size: int,
        *,
        dry: bool = False,
    ) -> None:
        # The harness sets padding and truncation on it, which a model saved afterwards would be saved with.
        super().__init__(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
        self._prices, self._dry = prices, dry
        if dry:
            self._device = torch.device("cpu")  # of the questions; the model holds no numbers
        self.tally = Tally()

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ANN401 - as the harness has it
        """Score continuations, without a bar of its own."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ANN401
        """Score whole texts, without a bar of its own."""
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ANN401
        """Write answers, without a bar of its own."""
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> Any:  # noqa: ANN401
        passes: dict[tuple[int, ...], int] = {}
        for _, context, continuation in requests:
            text = tuple((context + continuation)[-(self.max_length + 1) : -1])
            passes[text] = max(passes.get(text, 0), min(len(continuation), len(text)))
        lengths = [len(text) for text in passes]
        self._count(Work(sum(lengths), sum(n * n for n in lengths)), sum(passes.values()))
        if self._dry:
            self.tally.padded += sum(lengths)
            return [(0.0, False)] * len(requests)
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        self.tally.padded += inps.numel()
        logits: Tensor = super()._model_call(inps, attn_mask, labels)
        return logits

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **settings: Any) -> Tensor:  # noqa: ANN401
        prompts = settings["attention_mask"].sum(dim=1).tolist()
        if self._dry:
            written: Tensor = context
            lengths = [max_length - context.shape[1]] * len(prompts)
        else:
            written = super()._model_generate(context, max_length, stop, **settings)
            lengths = _lengths(written[:, context.shape[1] :], self._ends)
        pairs = sum(p * p + _triangle(p + g - 1) - _triangle(p) for p, g in zip(prompts, lengths, strict=True))
        worked = sum(p + max(g - 1, 0) for p, g in zip(prompts, lengths, strict=True))
        self._count(Work(worked, pairs), sum(lengths))
        self.tally.padded += context.numel() + len(prompts) * max(max(lengths) - 1, 0)
        return written

    @property
    def _ends(self) -> list[int]:
        """The tokens that end a text: after one the model writes padding."""
        ends = self.model.generation_config.eos_token_id
        return [] if ends is None else ends if isinstance(ends, list) else [ends]

    def _count(self, work: Work, supervised: int) -> None:
        self.tally.processed += int(work.tokens)
        self.tally.supervised += supervised
        self.tally.flops += self._prices.forward(work)


def _triangle(n: int) -> int:
    """Return 1 + 2 + ... + n."""
    return n * (n + 1) // 2


def _lengths(written: Tensor, ends: list[int]) -> list[int]:
    """Return how many tokens each row has up to its first end of text, that included."""
    if written.shape[1] == 0:
        return [0] * len(written)
    over = torch.isin(written, torch.tensor(ends, device=written.device))
    first = torch.where(over.any(dim=1), over.int().argmax(dim=1) + 1, written.shape[1])
    return [int(n) for n in first]
