"""The gradient of every example of a pool and of the targets: projected, or as exact products with the targets'."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from apportion.budget.prices import Cost, Work
from apportion.signals._pool import Look, PoolSignal, Shown, in_order, means_by_target
from apportion.signals._signal import cost_of
from apportion.signals.example_gradients import ExampleGradients
from apportion.signals.hidden_states import unit
from apportion.signals.in_run import InRunRead, check_readable
from apportion.signals.inner_step import InnerStep, SgdStep, check_followed
from apportion.signals.losses import example_losses, recomputing
from apportion.signals.projection import projected
from apportion.tasks.batches import Batch
from apportion.tasks.validation import Picked

# Numbers of examples' gradients that are held at once, unless one example alone has more.
HELD = 2**22


class ProductRead(InRunRead):
    """`InRunRead`, asked for by a selection."""

    who, instead = ExampleGradients.who, ExampleGradients.instead


def check_gradients(shapes: nn.Module, optim: str) -> None:
    """Refuse an optimizer whose step is not known, and a model whose backward cannot be read.

    Args:
        shapes: The model on the meta device.
        optim: The optimizer, as ``training.optim`` names it.

    Raises:
        ApportionError: As said.
    """
    check_followed(optim, f"{ProductRead.who} looks", "")
    check_readable(shapes, packed=False, reads=ProductRead)


class ProjectedGradients(PoolSignal):
    """Shows ``embeddings`` (n, width) and ``anchors`` (V, width).

    The former are what the optimizer's step would be by each example's gradient alone, projected, as unit vectors; the
    latter the mean over each target's examples of plain gradients, likewise.

    Args:
        looks: Checkpoints of the warm-up that the pool is looked at with.
        width: Of the projection.
        seed: Of its signs.

    Cost, charged to `select`: for each look a forward and backward pass over pool and targets, and 2 P FLOPs an example for
    the projection of P trained numbers. Memory: 16 MiB of gradients, or one example's.
    """

    def __init__(self, *, looks: int, width: int, seed: int) -> None:
        self.looks, self._width, self._seed = looks, width, seed

    def check(self, shapes: nn.Module, optim: str) -> None:
        """Refuse an optimizer whose step is not known, and a model whose gradients cannot be read by example."""
        check_gradients(shapes, optim)

    def price(self) -> Cost:
        """Return the cost of all looks."""
        targets, _ = self.laid_out(self.target_examples())
        once = self.bench.pool.cost(self.bench.gradient) + cost_of(targets, self.bench.gradient)
        examples = len(self.bench.pool) + sum(map(len, targets))
        return (once + Cost(flops=self._projection(examples))).times(self.looks)

    def _projection(self, examples: int) -> float:
        return 2.0 * self.bench.trained * examples

    def begin(self, look: Look) -> dict[str, Tensor]:
        """Take the targets' gradients."""
        self._take(look)
        examples = self.target_examples()
        vectors = self._vectors(examples, SgdStep(1.0))
        return {"anchors": means_by_target(vectors, examples, len(self.bench.targets))}

    def resume(self, look: Look, state: dict[str, Tensor]) -> None:
        """Take the targets' gradients of before."""
        self._take(look)
        self._anchors = state["anchors"]

    def _take(self, look: Look) -> None:
        self._look, self._reader = look, ExampleGradients(look.model)

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Take a chunk's steps."""
        return Shown(embeddings=self._vectors(chunk, self._look.inner or SgdStep(1.0)), anchors=self._anchors)

    def _vectors(self, picked: Sequence[Picked], inner: InnerStep) -> Tensor:
        """Return the projected steps of the examples, unit vectors (n, width)."""
        batches, places = self.laid_out(picked, HELD // self.bench.trained)
        device = next(self._look.model.parameters()).device
        found: list[Tensor] = []
        with recomputing(self._look.model):
            for batch in batches:
                steps = self._steps(batch.to(device), inner)
                found.append(unit(projected(steps, self._width, self._seed)).cpu())
        self.charge(batches, sum(self.bench.gradient(batch.work) for batch in batches) + self._projection(len(picked)))
        return in_order(found, places)

    def _steps(self, batch: Batch, inner: InnerStep) -> Tensor:
        """Return what the optimizer would subtract for each example alone, (B, P)."""
        gradients = self._reader.of(self._look.model, batch)
        return torch.cat([inner.update(name, g).flatten(1) for name, g in gradients.items()], dim=1)


class GradientProducts(PoolSignal):
    """Shows ``products`` (n, V): `<grad l_k, u_j>`, exact, read from one backward pass of each example.

    u_j is the mean gradient of target j's examples through the optimizer's second moments.

    Args:
        looks: Checkpoints of the warm-up that the pool is looked at with.

    Cost, charged to `select`: for each look a forward and backward pass over pool and targets, and one more matmul a trained
    layer and target.
    """

    def __init__(self, *, looks: int) -> None:
        self.looks = looks

    def check(self, shapes: nn.Module, optim: str) -> None:
        """Refuse an optimizer whose step is not known, and a model whose backward cannot be read."""
        check_gradients(shapes, optim)

    def price(self) -> Cost:
        """Return the cost of all looks."""
        targets, _ = self.laid_out(self.target_examples())
        return (self.bench.pool.cost(self._read) + cost_of(targets, self.bench.gradient)).times(self.looks)

    def _read(self, work: Work) -> float:
        return self.bench.gradient(work) + len(self.bench.targets) * self.bench.prices.in_run_read(work.tokens)

    def begin(self, look: Look) -> dict[str, Tensor]:
        """Take the targets' mean gradients."""
        inner = look.inner or SgdStep(1.0)
        found: dict[str, Tensor] = {}
        for at, examples in enumerate(self.bench.targets.steer):
            mean = self._mean_gradient(look.model, examples)
            found |= {f"{at}.{name}": inner.precondition(name, value).cpu() for name, value in mean.items()}
        return found

    def _mean_gradient(self, model: nn.Module, examples: Sequence[Picked]) -> dict[str, Tensor]:
        batches, _ = self.laid_out(examples)
        device = next(model.parameters()).device
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with recomputing(model):
            for batch in batches:
                (example_losses(model, batch.to(device)).sum() / len(examples)).backward()
        self.charge(batches, sum(self.bench.gradient(batch.work) for batch in batches))
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained.items()}
        for p in trained.values():
            p.grad = None
        return found

    def resume(self, look: Look, state: dict[str, Tensor]) -> None:
        """Take the targets' mean gradients of before."""
        self._model = look.model
        device = next(look.model.parameters()).device
        self._readers = []
        for at in range(len(self.bench.targets)):
            reader, prefix = ProductRead(look.model), f"{at}."
            reader.set_direction(
                {k.removeprefix(prefix): v.to(device) for k, v in state.items() if k.startswith(prefix)}
            )
            self._readers.append(reader)

    def show(self, chunk: Sequence[Picked]) -> Shown:
        """Read a chunk's products."""
        model, found = self._model, []
        batches, places = self.laid_out(chunk)
        device = next(model.parameters()).device
        with recomputing(model):
            for batch in (batch.to(device) for batch in batches):
                with ExitStack() as stack:
                    scores = [stack.enter_context(reader.reading(batch, device)) for reader in self._readers]
                    example_losses(model, batch).sum().backward()
                found.append(torch.stack(scores, dim=1).float().cpu())
        for p in model.parameters():
            p.grad = None
        self.charge(batches, sum(self._read(batch.work) for batch in batches))
        return Shown(products=in_order(found, places))
