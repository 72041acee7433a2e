"""A batch laid out as a hypernetwork's base model reads it: encoder and decoder apart, instruction before, text in three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apportion.models.tagi.splitting import cut_of
from apportion.tasks.batches import Batch


@dataclass(frozen=True)
class Seq2SeqBatch:
    """A batch for an encoder-decoder: input (B, n), decoder (B, m), ``positions`` (S,) flat into the decoder's logits.

    A mask is None where there is no padding.
    """

    input_ids: Tensor
    input_mask: Tensor | None
    decoder_ids: Tensor
    decoder_mask: Tensor | None
    positions: Tensor


def contexts_of(batch: Batch) -> Tensor:
    """Return how many tokens of each example come before its first supervised one, (B,)."""
    lengths = batch.attention_mask[: len(batch)].sum(1)
    column = batch.positions % batch.input_ids.shape[1] + 1
    return lengths.scatter_reduce(0, batch.examples, column, "amin", include_self=True)


def ended(ids: Tensor, mask: Tensor, end: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return texts (B, n), padded on either side, with the end token behind each, and their mask, (B, n + 1) both."""
    behind = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1, keepdim=True)
    longer, its = (torch.cat([x, x.new_full((len(x), 1), fill)], 1) for x, fill in ((ids, pad), (mask, 0)))
    return longer.scatter(1, behind, end), its.scatter(1, behind, 1)


def split_rows(batch: Batch, pad: int, start: int, end: int) -> Seq2SeqBatch:
    """Give the encoder each example's tokens before the first supervised one, and the decoder the rest.

    The encoder reads them as it was pretrained to read a text: ``end`` behind them.

    The decoder reads ``start`` and then all of its tokens but the last, so that it predicts each from those before.
    """
    contexts, lengths = contexts_of(batch), batch.attention_mask[: len(batch)].sum(1)
    rests = lengths - contexts
    ids = batch.input_ids[: len(batch)]
    columns = torch.arange(ids.shape[1], device=ids.device)
    n, m = max(int(contexts.max()), 1), max(int(rests.max()), 1)
    mask = (columns[None, :n] < contexts[:, None]).long()
    input_ids = torch.where(mask.bool(), ids[:, :n], pad)
    shifted = (contexts[:, None] + columns[None, : m - 1]).clamp(max=ids.shape[1] - 1)
    decoder_ids = torch.cat([ids.new_full((len(ids), 1), start), ids.gather(1, shifted)], 1)
    decoder_mask = (columns[None, :m] < rests[:, None]).long()
    decoder_ids = torch.where(decoder_mask.bool(), decoder_ids, pad)
    column = batch.positions % batch.input_ids.shape[1] + 1 - contexts[batch.examples]
    return Seq2SeqBatch(*ended(input_ids, mask, end, pad), decoder_ids, decoder_mask, batch.examples * m + column)


def stacked(rows: Sequence[Tensor], pad: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return ids (T, s) and mask (T, s) of instructions, padded on the right."""
    ids = pad_sequence(list(rows), batch_first=True, padding_value=pad).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(ids.shape[1], device=device)[None] < lengths[:, None]).long()


def opening(instruction: Tensor, end: int | None) -> Tensor:
    """Return what of an instruction (s,) can stand before an example: without the end token that it may have by itself."""
    return instruction[:-1] if len(instruction) and int(instruction[-1]) == end else instruction


def joined(batch: Batch, instructions: Sequence[Tensor], pad: int, bos: int | None, end: int | None) -> Batch:
    """Return the batch with each example's instruction before it, what a teacher reads; one start token is enough."""
    device, lengths = batch.input_ids.device, batch.attention_mask[: len(batch)].sum(1).tolist()
    before = [opening(instructions[task], end).to(device) for task in batch.tasks.tolist()]
    starts = [
        int(bos is not None and head[0] == row[0] == bos) for head, row in zip(before, batch.input_ids, strict=False)
    ]
    rows = [
        torch.cat([head, row[start:n]])
        for head, row, start, n in zip(before, batch.input_ids, starts, lengths, strict=False)
    ]
    ids, mask = stacked(rows, pad, device)
    heads = torch.tensor([len(head) - start for head, start in zip(before, starts, strict=True)], device=device)
    column = batch.positions % batch.input_ids.shape[1] + heads[batch.examples]
    return replace(batch, input_ids=ids, attention_mask=mask, positions=batch.examples * ids.shape[1] + column)


def cut_rows(batch: Batch, pad: int) -> tuple[tuple[Tensor, Tensor], Batch]:
    """Cut the first part off each plain text, as its instruction: its ids and mask, and the batch of what is left.

    Where follows from the context's length alone (`cut_of`), so that the price of a pass does.
    """
    contexts, lengths = contexts_of(batch).tolist(), batch.attention_mask[: len(batch)].sum(1).tolist()
    cuts = [cut_of(context) for context in contexts]
    ids = batch.input_ids
    heads = stacked([ids[k, :cut] for k, cut in enumerate(cuts)], pad, ids.device)
    rest, mask = stacked(
        [ids[k, cut:length] for k, (cut, length) in enumerate(zip(cuts, lengths, strict=True))], pad, ids.device
    )
    column = batch.positions % ids.shape[1] - torch.tensor(cuts, device=ids.device)[batch.examples]
    return heads, replace(batch, input_ids=rest, attention_mask=mask, positions=batch.examples * rest.shape[1] + column)
