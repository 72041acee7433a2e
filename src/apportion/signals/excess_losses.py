"""How far the losses of a step's tokens stand above those of a reference model, by task, and shares that follow them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from apportion._errors import ApportionError
from apportion._ranks import summed, world
from apportion.budget.prices import Cost, Work
from apportion.models.loading import load_model, quietly
from apportion.models.output import read
from apportion.signals._records import Bench, Draw, Outlook, Seen
from apportion.signals._signal import ExampleSignal, Weigh
from apportion.signals.losses import measuring
from apportion.signals.training_forward import made_by, sums_by_task, token_losses
from apportion.tasks.batches import Batch
from apportion.tasks.files import expand

Move = Callable[[Tensor, Tensor], Tensor]
"""The next shares, (T,), from those before and the tasks' excess losses, (T,)."""


class ExcessLosses(ExampleSignal):
    """Shows ``shares`` (T,), moved by each step's excess losses before that step is weighed, and ``tasks`` (N,).

    A task's excess is the mean over its supervised tokens in the step of max(l - l_ref, 0), clipped token by token; a task
    without any keeps the one it had last, at first 0.

    Args:
        move: The method's rule.
        reference: The folder of a finished run on the same tasks; its model is the reference.

    Cost, charged to `meta`: a forward pass of the reference over every step. Where a step is one micro-batch, the model's
    own losses are those of the training forward; of several, all are needed before the first backward: one more forward
    pass over the step, in evaluation mode. Memory: the reference's weights.
    """

    reads = "reference"

    def __init__(self, move: Move, *, reference: str) -> None:
        self._move, self._place = move, reference
        self._reference: nn.Module | None = None

    def attach(self, bench: Bench) -> ExcessLosses:
        """Start with even shares."""
        count = len(bench.tasks.tasks)
        self._shares = torch.full((count,), 1 / count, dtype=torch.float64)
        self._excess = torch.zeros(count, dtype=torch.float64)
        return super().attach(bench)

    def load(self) -> None:
        """Load the reference.

        Raises:
            ApportionError: The folder holds no finished run, one on other data, or a model that does not load.
        """
        folder = expand(self._place)
        if not (folder / "summary.json").is_file():
            raise ApportionError(
                f"'weights.reference' is the folder of a finished run, and '{folder}' holds none: train one on these "
                "tasks, or let 'mixture.type: doremi' do it."
            )
        if json.loads((folder / "summary.json").read_text("utf-8"))["fingerprint"] != self.bench.tasks.fingerprint:
            raise ApportionError(
                f"The run in '{folder}', which 'weights.reference' names, read other tasks or another tokenizer: "
                "its losses cannot be set against these."
            )
        with quietly():
            self._reference = load_model(AutoModelForCausalLM, str(folder / "model"), "reference")
        self._reference.eval().requires_grad_(False)

    def known(
        self, weigh: Weigh, model: nn.Module, batches: Sequence[Batch], draws: Sequence[Sequence[Draw]], step: int
    ) -> Sequence[Tensor] | None:
        """Return the weights of a step of several micro-batches, by a second look at it."""
        if len(batches) == world() == 1:
            return None  # the training forward's own losses are all there are
        device = next(model.parameters()).device
        sums = torch.zeros(2, len(self._shares), dtype=torch.float64)
        with measuring(model), torch.no_grad():
            for batch in (batch.to(device) for batch in batches):
                sums = sums + self._above(token_losses(read(model, batch), batch), batch).cpu()
        self.charge_parts(batches)
        self.charge_parts(batches)
        self._follow(sums)
        return [weigh(Seen(tasks=batch.tasks, shares=self._shares)) for batch in batches]

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[list[Any]]:
        """Keep what the training forward returns."""
        with made_by(model) as made:
            yield made

    def within(self, weigh: Weigh, batch: Batch, losses: Tensor, watched: Sequence[Any]) -> Tensor:
        """Move the shares by the one micro-batch, and return its weights."""
        sums = self._above(token_losses(watched[0], batch), batch)
        self.charge_parts([batch])
        self._follow(sums.cpu())
        return weigh(Seen(tasks=batch.tasks, shares=self._shares.to(losses.device)))

    def _above(self, losses: Tensor, batch: Batch) -> Tensor:
        """Return each task's sum of max(l - l_ref, 0) over the batch's tokens, and their number: (2, T)."""
        if self._reference is None:
            self.load()
        assert self._reference is not None
        self._reference.to(losses.device)
        with torch.no_grad():
            theirs = token_losses(read(self._reference, batch), batch)
        return sums_by_task((losses - theirs).clamp(min=0), batch, len(self._shares))

    def _follow(self, sums: Tensor) -> None:
        total, tokens = summed(sums)
        self._excess = torch.where(tokens > 0, total / tokens.clamp(min=1), self._excess)
        self._shares = self._move(self._shares, self._excess)

    def step_price(self, work: Work) -> float:
        """Return the FLOPs of the reference's pass, and of the second look."""
        return self.bench.prices.forward(work) * (1 + self.bench.several)

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of these passes over all steps."""
        once = Cost(outlook.draw.supervised, outlook.draw.processed, outlook.forward)
        return once.times(outlook.draws * (1 + self.bench.several))

    def state_dict(self) -> dict[str, Any]:
        """Return the shares and the last excess losses."""
        return {"shares": self._shares, "excess": self._excess}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        self._shares, self._excess = state["shares"], state["excess"]
