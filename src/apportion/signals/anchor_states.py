"""The model's own last-layer states of a step's examples, and of anchors that are embedded again every so often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from apportion._errors import ApportionError
from apportion._ranks import part_of, summed
from apportion.budget.prices import Cost
from apportion.signals._records import AnchorsAsked, Bench, Moment, Outlook, Seen
from apportion.signals._signal import ExampleSignal, Weigh, cost_of
from apportion.signals.hidden_states import Positions, last_states, members, of_examples
from apportion.signals.losses import measuring
from apportion.tasks.batches import Batch
from apportion.tasks.validation import batched

Embed = Callable[[Tensor, Tensor], Tensor]
"""One vector an example, (B, d), from its row's states (B, L, d) and which are its tokens', (B, L) bool."""


class AnchorStates(ExampleSignal):
    """Shows ``embeddings`` of a micro-batch's examples, from the training forward itself, and the mean ``anchor``.

    Args:
        embed: The method's embedding.
        refresh: Optimizer steps between two embeddings of the anchors.
        positions: Tokens that are pooled: `all`, `prompt` or `completion`.
        anchors: Which examples the anchors are.

    Cost: a training example costs no pass. The anchors cost one forward pass every ``refresh`` steps, charged to
    `validation`; left out where a budget in FLOPs has no room for it and earlier embeddings can serve on.
    """

    reads = "states"
    account = "validation"

    def __init__(self, embed: Embed, *, refresh: int, positions: Positions, anchors: AnchorsAsked) -> None:
        self._embed, self._refresh, self._positions, self._asked = embed, refresh, positions, anchors
        self._batches: list[Batch] = []
        self._once = Cost()
        self._anchor: Tensor | None = None

    @property
    def anchors(self) -> AnchorsAsked:
        """The examples that training examples are compared with."""
        return self._asked

    def attach(self, bench: Bench) -> AnchorStates:
        """Lay the anchors out in batches."""
        self._batches = batched(bench.anchors.picked, bench.batch_size, bench.pad_id)
        self._once = cost_of(self._batches, bench.prices.forward)
        return super().attach(bench)

    def opening(self) -> float:
        """Return the FLOPs of the first embedding."""
        return self._once.flops

    def price(self, outlook: Outlook) -> Cost:
        """Return the cost of all embeddings."""
        return self._once.times(-(-outlook.steps // self._refresh))

    def before_step(self, moment: Moment, weigh: Weigh) -> None:
        """Embed the anchors if that is due."""
        if self._anchor is not None and (
            moment.step % self._refresh or not self.bench.allowance.affords(self._once.flops)
        ):
            return
        model = moment.model
        device, config = next(model.parameters()).device, cast("Any", model.config)
        mine, total = part_of(self._batches), torch.zeros(config.get_text_config().hidden_size, device=device)
        with measuring(model), torch.no_grad(), last_states(model) as states:
            for batch in (batch.to(device) for batch in mine):
                model(**batch.model_inputs)
                total = total + self._embedded(states.pop(), batch).sum(0)
        self.charge_parts(mine)
        self._anchor = summed(total) / sum(map(len, self._batches))

    def _embedded(self, states: Tensor, batch: Batch) -> Tensor:
        return self._embed(of_examples(states, batch), members(batch, self._positions))

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Keep the states of the training forward."""
        with last_states(model) as states:
            yield states

    def within(self, weigh: Weigh, batch: Batch, losses: Tensor, watched: Sequence[Tensor]) -> Tensor:
        """Return the weights by the examples' embeddings and the anchors'."""
        return weigh(Seen(embeddings=self._embedded(watched[0], batch), anchor=self._anchor))

    def state_dict(self) -> dict[str, Any]:
        """Return the anchors' mean, and what they are."""
        return {"fingerprint": self.bench.anchors.fingerprint, "anchor": self._anchor}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ApportionError: The anchors are not those that the run began with.
        """
        check_same(state["fingerprint"], self.bench.anchors.fingerprint)
        self._anchor = None if state["anchor"] is None else state["anchor"].to(device)


def check_same(before: str, now: str) -> None:
    """Refuse to resume with other anchors.

    Raises:
        ApportionError: The files changed.
    """
    if before != now:
        raise ApportionError(
            "The files under 'weights.files' changed since this run began: put them back to resume it, "
            "or start in a new folder."
        )
