"""Read `<grad l_k, u>` for every example from the ordinary training backward: one more matmul a layer.

A module that is linear in its own parameters, with input a and output gradient b, contributes sum(b * module_u(a)) to an
example's product, where module_u is the module with u in place of its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from apportion._errors import ApportionError
from apportion.signals._backward import BackwardRead
from apportion.tasks.batches import Batch


def linear_product(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return the terms of b . (W a), elementwise, (R, L, ..., min(in, out)): their sum is `<grad L, weight>`.

    Shapes: a (R, L, ..., in), b (R, L, ..., out), weight (out, in). The matmul is the same from either side; the
    elementwise part is done on the narrower one.
    """
    a, weight = a.to(b.dtype), weight.to(b.dtype)
    narrow, wide = (F.linear(a, weight), b) if weight.shape[0] <= weight.shape[1] else (b @ weight, a)
    return narrow * wide


def by_example(terms: Tensor, segments: Tensor | None, n_examples: int) -> Tensor:
    """Sum (R, L, ...) terms over each example, (B,) in fp32 (fp64 for fp64 terms).

    Args:
        terms: What each position contributes.
        segments: (R, L) the example of each position, or None where a row is an example.
        n_examples: B.
    """
    dtype = torch.promote_types(terms.dtype, torch.float32)
    if segments is None:
        return terms.flatten(1).sum(1, dtype=dtype)
    by_position = terms.flatten(2).sum(2, dtype=dtype)
    return by_position.new_zeros(n_examples).index_add(0, segments.flatten(), by_position.flatten())


class InRunRead(BackwardRead):
    """Collects `<grad L, u>` split by example while L's backward runs.

    Raises:
        ApportionError: A trainable parameter sits in a module this reading does not know; the message names it.
    """

    who = "The mixture's 'in_run' estimator"
    instead = "set mixture.estimator to 'forward'"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._direction: dict[str, Tensor] = {}
        self._scores: Tensor | None = None

    def set_direction(self, direction: Mapping[str, Tensor]) -> None:
        """Set u, by parameter name, for the batches to come."""
        self._direction = dict(direction)

    @contextmanager
    def reading(self, batch: Batch, device: torch.device) -> Iterator[Tensor]:
        """Within the block, a forward and backward of ``batch`` fill the yielded (B,) fp32 tensor with <grad L, u>.

        Cost: 2 x trainable matmul parameters FLOPs a token; charged by the caller to `meta`.
        """
        wide = any(u.dtype == torch.float64 for u in self._direction.values())
        scores = torch.zeros(len(batch), device=device, dtype=torch.float64 if wide else torch.float32)
        segments = batch.segments.to(device) if batch.packed else None
        with self._collecting(scores, batch.input_ids.shape, segments):
            yield scores

    @contextmanager
    def _collecting(self, scores: Tensor, rows: torch.Size, segments: Tensor | None) -> Iterator[None]:
        self._scores = scores
        try:
            with self._watching(rows, segments):
                yield
        finally:
            self._scores = None

    def _receive(self, module: nn.Module, a: Tensor, b: Tensor, more: tuple[Any, ...], given: dict[str, Any]) -> None:
        assert self._scores is not None
        self._scores += self._product(module, a, b, more, given)

    @torch.no_grad()
    def _product(self, module: nn.Module, a: Tensor, b: Tensor, more: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        u = {
            name: self._direction[self._names[id(p)]]
            for name, p in module.named_parameters(recurse=False)
            if p.requires_grad
        }
        assert self._scores is not None
        total = torch.zeros_like(self._scores, dtype=torch.promote_types(b.dtype, torch.float32))
        if isinstance(module, (nn.Linear, Conv1D)):
            if "weight" in u:
                weight = u["weight"].T if isinstance(module, Conv1D) else u["weight"]
                total += self._by_example(linear_product(a, b, weight))
            if "bias" in u:
                total += self._by_example(b * u["bias"].to(b.dtype))
            return total
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            # Autograd gives the padding row no gradient through the look-up, so it gets no direction either.
            u = {"weight": u["weight"].index_fill(0, torch.tensor([module.padding_idx], device=b.device), 0)}
        # f(u) - f(0) is the derivative of any module affine in its parameters: Gemma's norms scale by 1 + w.
        self._reading = False
        zeros = {name: torch.zeros_like(value) for name, value in u.items()}
        change = functional_call(module, u, (a, *more), given) - functional_call(module, zeros, (a, *more), given)
        self._reading = True
        return total + self._by_example(b * change)

    def _by_example(self, terms: Tensor) -> Tensor:
        assert self._scores is not None
        return by_example(terms, self._segments, len(self._scores))


def check_readable(shapes: nn.Module, packed: bool, reads: type[InRunRead] = InRunRead) -> None:
    """Refuse a model that `InRunRead` cannot read, by reading it once on shapes alone.

    Args:
        shapes: The model on the meta device; comes back as it was.
        packed: Whether several examples will share a row.
        reads: What the errors name.

    Raises:
        ApportionError: A trainable parameter of an unknown kind, a module that does not keep examples apart, or one whose
            output the model writes over.

    Cost: nothing is computed.
    """
    reader, model = reads(shapes), cast("Any", shapes)
    reader.set_direction({name: p for name, p in model.named_parameters() if p.requires_grad})
    # Two sizes that no model has by chance. Other attention kernels than the plain one look into the mask.
    rows, attention = torch.Size((13, 7)), model.config._attn_implementation
    tokens = torch.ones(rows, dtype=torch.int64, device="meta")
    model.set_attn_implementation("eager")
    try:
        with reader._collecting(
            torch.zeros(rows[0], device="meta"), rows, torch.zeros_like(tokens) if packed else None
        ):
            model(input_ids=tokens, attention_mask=tokens, use_cache=False).logits.sum().backward()
    except RuntimeError as error:
        if "inplace" not in str(error):
            return  # it does not run on shapes alone, so what else there is to find is found in the first read
        raise ApportionError(
            f"A model of type '{model.config.model_type}' writes over its layers' outputs, so "
            f"{reads.who[:1].lower()}{reads.who[1:]} cannot read them; {reads.instead}."
        ) from None
    finally:
        model.set_attn_implementation(attention)
        model.zero_grad(set_to_none=True)
