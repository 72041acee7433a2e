"""Answers to prompts: greedy decoding in batches, prompts encoded as training encodes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from apportion._errors import ApportionError
from apportion.tasks.encoder import Encoder
from apportion.tasks.tokenizers import ensure_pad


def answers(
    generate: Callable[..., Tensor],
    encoder: Encoder,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    *,
    tasks: Sequence[int] | None = None,
    encoder_decoder: bool = False,
    device: torch.device | str = "cpu",
) -> list[str]:
    """Return the greedy answer to each prompt: what was generated after it, up to the tokenizer's end token.

    A prompt is encoded as in training beside a completion of ``max_new_tokens`` tokens: template, start token, its middle
    cut out where both do not fit the encoder's length. Prompts of like length share a batch, padded on the left for a
    decoder-only model, which goes on at the right, and on the right for an encoder-decoder one.

    Args:
        generate: ``model.generate`` or the like, of a model in evaluation mode: called with ``input_ids`` and
            ``attention_mask`` (batch, L), the settings of greedy decoding and, if ``tasks`` is given, ``tasks`` (batch,).
            Returns ids (batch, *) that begin with the input, or for an encoder-decoder with the decoder's start token.
        encoder: The tokenizer and the longest example that training used.
        prompts: The prompts.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Prompts a batch.
        tasks: Index of each prompt's task, handed on to ``generate``.
        encoder_decoder: Whether the model is one.
        device: Where ``generate`` wants its tensors.

    Cost: for each prompt a forward pass over it and over its answer, which the caller charges to ``generate``.

    Raises:
        ApportionError: No positive ``batch_size`` or ``max_new_tokens``, not a task for each prompt, a prompt that leaves no
            token, or a tokenizer with neither a pad nor an end token.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise ApportionError(f"'batch_size' is {batch_size}, 'max_new_tokens' {max_new_tokens}: both are at least 1.")
    if tasks is not None and len(tasks) != len(prompts):
        raise ApportionError(f"There are {len(prompts)} prompts and {len(tasks)} tasks: name the task of each prompt.")
    ids = encoder.prompts(prompts, max_new_tokens)
    pad, end = ensure_pad(encoder.tokenizer), encoder.tokenizer.eos_token_id
    settings = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
    settings |= {"pad_token_id": pad, "eos_token_id": end}
    said = [""] * len(ids)
    order = sorted(range(len(ids)), key=lambda k: -len(ids[k]))
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        input_ids, mask = padded([ids[k] for k in chosen], pad, left=not encoder_decoder)
        extra = {} if tasks is None else {"tasks": torch.tensor([tasks[k] for k in chosen], device=device)}
        with torch.no_grad():
            output = generate(input_ids=input_ids.to(device), attention_mask=mask.to(device), **settings, **extra)
        start = 1 if encoder_decoder else input_ids.shape[1]
        for k, row in zip(chosen, output[:, start:].tolist(), strict=True):
            said[k] = _text(encoder, row[: row.index(end)] if end in row else row)
    return said


def padded(rows: Sequence[np.ndarray], pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, both (len(rows), longest) int64, filled up with ``pad`` on the left or the right.

    Args:
        rows: Token ids, each (length,).
        pad: Id to fill up with, which the mask hides.
        left: Whether the padding comes first.
    """
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros_like(ids)
    for k, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[k, span], mask[k, span] = row, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _text(encoder: Encoder, row: list[int]) -> str:
    text: str = encoder.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
