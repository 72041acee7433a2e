"""The gradient of every example of a batch by itself, from one ordinary backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from apportion.signals._backward import BackwardRead
from apportion.signals.losses import example_losses
from apportion.tasks.batches import Batch


class ExampleGradients(BackwardRead):
    """Reads the gradient of each example's loss, by parameter: of a linear layer b^T a, the product over its positions.

    Raises:
        ApportionError: A trainable parameter sits in a module this reading does not know; the message names it.
    """

    who = "'selection.type: less'"
    instead = "train adapters by 'lora'"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._found: dict[str, Tensor] = {}

    def of(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return each example's gradient, (B, *shape) by parameter, in fp32 (fp64 for an fp64 model).

        Args:
            model: The model that this was made of.
            batch: The examples, a row each, on the model's device.

        Cost: a forward and a backward pass over the batch, which the caller charges. Memory: B times what is trained.

        Raises:
            ApportionError: A module does not keep the examples apart.
        """
        self._found = {}
        with self._watching(batch.input_ids.shape, None):
            # Only the hooks' readings are wanted: the sum's own gradient is that of the parameters, and is dropped.
            example_losses(model, batch).sum().backward()
        for p in self._parameters.values():
            p.grad = None
        found, self._found = self._found, {}
        missing = [name for name in self._parameters if name not in found]
        zeros = {
            name: torch.zeros(len(batch), *self._parameters[name].shape, device=batch.input_ids.device)
            for name in missing
        }
        return {name: (found | zeros)[name] for name in self._parameters}

    @torch.no_grad()
    def _receive(self, module: nn.Module, a: Tensor, b: Tensor, more: tuple[Any, ...], given: dict[str, Any]) -> None:
        own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
        for name, read in self._gradients(module, own, a, b, more, given):
            whole = self._names[id(own[name])]
            gradient = read.to(torch.promote_types(read.dtype, torch.float32))
            # Tied parameters are read at each of their uses.
            self._found[whole] = self._found[whole] + gradient if whole in self._found else gradient

    def _gradients(
        self,
        module: nn.Module,
        own: dict[str, nn.Parameter],
        a: Tensor,
        b: Tensor,
        more: tuple[Any, ...],
        given: dict[str, Any],
    ) -> list[tuple[str, Tensor]]:
        if isinstance(module, nn.Embedding):
            self._reading = False
            found = [("weight", _of_embedding(module, a, b, more, given))]
            self._reading = True
            return found
        if isinstance(module, (nn.Linear, Conv1D)):
            found = []
            left, right = (
                b.flatten(1, -2) if b.dim() > 2 else b[:, None],
                a.flatten(1, -2) if a.dim() > 2 else a[:, None],
            )
            if "weight" in own:
                right = right.to(left.dtype)
                product = torch.bmm(left.transpose(1, 2), right)
                found.append(("weight", product.transpose(1, 2) if isinstance(module, Conv1D) else product))
            if "bias" in own:
                found.append(("bias", left.sum(1)))
            return found
        # A norm is affine in its parameters, each of which acts on one place of the last dimension.
        self._reading = False
        zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters(recurse=False)}
        base = functional_call(module, zeros, (a, *more), given)
        found = []
        for name, p in own.items():
            one = functional_call(module, {**zeros, name: torch.ones_like(p)}, (a, *more), given)
            found.append((name, (b * (one - base)).flatten(1, -2).sum(1)))
        self._reading = True
        return found


def _of_embedding(module: nn.Embedding, a: Tensor, b: Tensor, more: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
    """Return the gradient of each example's look-ups, (B, V, d); arguments are `BackwardRead._receive`'s.

    Which row a position takes, and times what, is asked of the module: Gemma's scales its rows, OPT's counts places.
    """
    rows, width = module.weight.shape
    places = torch.arange(rows, device=b.device, dtype=torch.float64)[:, None]
    ones = torch.ones(rows, 1, device=b.device, dtype=torch.float64)
    looked_up, exact, factor = (
        functional_call(module, {"weight": weight}, (a, *more), given).expand(*b.shape[:-1], 1)
        for weight in (places, ones, ones.to(module.weight.dtype))
    )
    ids = (looked_up / exact).round().to(torch.int64).flatten(1, -2)
    found = b.new_zeros(len(b), rows, width)
    found.scatter_add_(1, ids.expand(-1, -1, width), (b * factor).flatten(1, -2))
    if module.padding_idx is not None:
        found[:, module.padding_idx] = 0  # as autograd has it
    return found
