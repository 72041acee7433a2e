"""Reading instructions: the base model's own encoder, unadapted, once for all where the base stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apportion.models.tagi.kind import Tagi
from apportion.models.tagi.layout import stacked


@dataclass(frozen=True)
class Instructed:
    """T instructions as the base model's encoder sees them: pooled (T, d), and token by token (T, s, d) with mask (T, s)."""

    pooled: Tensor
    states: Tensor
    mask: Tensor


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


class Reader:
    """Reads tasks' instructions for a hypernetwork.

    Args:
        base: The base model.
        spec: The kind's settings.
        pool: What the pooled states are given to: the hypernetwork's precision and device.
        instructions: Token ids of each task's instruction, with an encoder-decoder's end token behind it.
    """

    def __init__(self, base: nn.Module, spec: Tagi, pool: nn.Linear, instructions: Sequence[Tensor]) -> None:
        named: Any = base
        self._base = named
        self._spec, self._pool = spec, pool
        self._pad = int(named.config.pad_token_id or 0)
        self._read: dict[int, Instructed] = {}
        self.instructions = [ids.cpu() for ids in instructions]

    def instruct(self, instructions: Sequence[Tensor]) -> None:
        """Put other tasks' instructions, (s,) token ids each, in the place of those there were."""
        self.instructions = [ids.cpu() for ids in instructions]
        self._read.clear()

    def read(self, ids: Tensor, mask: Tensor | None) -> Instructed:
        """Encode instructions (T, s); no mask is for no padding.

        Cost: a forward pass of the encoder (of a decoder-only model: of its layers) over them.
        """
        config = self._base.config
        encoder = self._base.get_encoder() if config.is_encoder_decoder else self._base.get_decoder()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._spec.frozen):
            cache = {} if config.is_encoder_decoder else {"use_cache": False}
            seen = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, **cache)
            # The hypernetwork's precision is its own, whatever the base was loaded in.
            last, first = (x.to(self._pool.weight.dtype) for x in (seen.last_hidden_state, seen.hidden_states[0]))
            # TAGI's code pools first and last layer; it counts padding in, which is left out here.
            mask = torch.ones_like(ids) if mask is None else mask
            weight = mask[..., None].to(last.dtype)
            pooled = ((last + first) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return Instructed(pooled, last, mask)

    def read_all(self) -> int:
        """Read every task's instruction ahead of use, where the base is frozen; returns the number read."""
        if not self._spec.frozen or not self.instructions:
            return 0
        self.of(list(range(len(self.instructions))))
        return len(self._read)

    def of(self, tasks: list[int]) -> Instructed:
        """Return the instructions of these tasks, read now or, of a frozen base, once before."""
        device = self._pool.weight.device
        if not self._spec.frozen:
            return self.read(*stacked([self.instructions[task] for task in tasks], self._pad, device))
        # One at a time and without dropout: what is kept must not depend on when and beside what it was first read.
        for task in tasks:
            if task not in self._read:
                with torch.no_grad(), evaluating(self._base):
                    self._read[task] = self.read(*stacked([self.instructions[task]], self._pad, device))
        found = [self._read[task] for task in tasks]
        pooled = torch.cat([one.pooled for one in found])
        if not (self._spec.fusion or self._spec.memory):
            return Instructed(pooled, pooled[:, None], pooled.new_ones(len(found), 1))
        states, mask = (
            nn.utils.rnn.pad_sequence([t[0] for t in ts], batch_first=True)
            for ts in zip(*((one.states, one.mask) for one in found), strict=True)
        )
        return Instructed(pooled, states, mask)
