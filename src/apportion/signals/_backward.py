"""What an ordinary backward pass shows of every module that is trained: its input and its output's gradient.

The input is saved through autograd, so activation recomputation, any attention kernel and mixed precision work unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from apportion._errors import ApportionError


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm") and all(p.dim() == 1 for p in module.parameters(recurse=False))


def _supported(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D, nn.Embedding)) or _is_norm(module)


class _Tap(torch.autograd.Function):
    """Identity on a module's output whose backward hands (input, output gradient) to the reader."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, a: Tensor, receive: Callable[[Tensor, Tensor], None]) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(a)
        ctx.receive = receive
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, b: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        ctx.receive(ctx.saved_tensors[0], b)
        return b, None, None


class BackwardRead:
    """Told of every trained module's input a and output gradient b while a backward pass runs.

    Attributes:
        who: Names the reader in its errors.
        instead: What can be set where a model cannot be read, in these errors.

    Raises:
        ApportionError: A trainable parameter sits in a module this reading does not know; the message names it.
    """

    who: str
    instead: str

    def __init__(self, model: nn.Module) -> None:
        self._modules = {
            name: module
            for name, module in model.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False))
        }
        for name, module in self._modules.items():
            if not _supported(module):
                raise ApportionError(
                    f"{self.who} cannot read the trainable parameters of '{name}' ({type(module).__name__}); freeze them, "
                    f"or {self.instead}."
                )
        self._names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        self._segments: Tensor | None = None
        self._rows = torch.Size()
        self._axes: dict[str, int] = {}
        self._reading = False

    def _receive(self, module: nn.Module, a: Tensor, b: Tensor, more: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Take what a module's pass showed.

        Args:
            module: The module.
            a: Its input, (R, L, ..., in), or (R, ...) where a row is an example.
            b: Its output's gradient, likewise.
            more: What else it was called with, by place.
            given: And by name.
        """
        raise NotImplementedError

    @contextmanager
    def _watching(self, rows: torch.Size, segments: Tensor | None) -> Iterator[None]:
        handles = [
            module.register_forward_hook(self._hook(name, module), with_kwargs=True)
            for name, module in self._modules.items()
        ]
        self._rows, self._segments, self._reading = rows, segments, True
        try:
            yield
        finally:
            self._segments, self._reading = None, False
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, module: nn.Module) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Tensor) -> Tensor | None:
            if not self._reading or not output.requires_grad:
                return None
            a = args[0]
            if isinstance(module, nn.Embedding) and len(output) == 1 < self._rows[0]:
                # Learned positions are looked up once for all rows, which then share them: one look-up a row.
                output, a = (x.expand(self._rows[0], *x.shape[1:]) for x in (output, a))

            def receive(a: Tensor, b: Tensor) -> None:
                self._receive(module, *self._apart(name, a.detach(), b.detach()), args[1:], given)

            return _Tap.apply(output, a, receive)

        return hook

    def _apart(self, name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return a module's input and output gradient as (R, L, ...), or (R, ...) where a row is an example."""
        if b.dim() == 2 and len(a) == len(b) == self._rows.numel() > self._rows[0]:
            a, b = (x.unflatten(0, self._rows) for x in (a, b))  # OPT lays its rows end to end
        if self._segments is not None:
            axis = self._axis_of_positions(name, b.shape, self._rows)
            return a.movedim(axis, 1), b.movedim(axis, 1)
        if len(b) != self._rows[0]:
            raise self._not_apart(name)
        return a, b

    def _axis_of_positions(self, name: str, shape: torch.Size, rows: torch.Size) -> int:
        """Return 1, or 2 where the heads come first, as in Gemma's norms of queries and keys."""
        found = [axis for axis in (1, 2) if axis < len(shape) - 1 and shape[axis] == rows[1]]
        if len(found) == 1:
            self._axes[name] = found[0]
        # A row as long as there are heads does not tell, but a module never changes its order.
        if not found or shape[0] != rows[0] or name not in self._axes:
            raise self._not_apart(name)
        return self._axes[name]

    def _not_apart(self, name: str) -> ApportionError:
        return ApportionError(
            f"'{name}' does not keep examples apart in its first dimensions, so {self.who[:1].lower()}{self.who[1:]} cannot "
            f"read it; {self.instead}, or 'packing' to false."
        )
