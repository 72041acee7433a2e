"""What requests are held to: how long each may think, and how many tokens its budget leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from apportion._errors import ApportionError
from apportion.budget.inference import InferenceBudget
from apportion.budget.prices import Prices
from apportion.budget.thinking import ThinkingBudget
from apportion.decoding.attach import BudgetedCache
from apportion.decoding.price import affordable
from apportion.decoding.requests import ANSWER, Request
from apportion.thinking.forcer import ThinkingForcer, waits_by_token
from apportion.thinking.tags import TagIds


@dataclass(frozen=True)
class Terms:
    """A budget, as it is held to on one model.

    Attributes:
        budget: Of a request.
        tags: Of thinking; None where there are none.
        prices: Of the model's passes.
        cache: An empty one, of the model and the method.
        positions: The longest text that the model has room for, None where it does not say.
        ends: Ids that end a text.
        beams: How many a request has.

    Raises:
        ApportionError: Thinking that cannot be held to, or limits that do not go with beams.
    """

    budget: InferenceBudget
    tags: TagIds | None
    prices: Prices
    cache: BudgetedCache
    positions: int | None
    ends: Sequence[int]
    beams: int
    _rooms: dict[tuple[int, int, ThinkingBudget | None], tuple[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.budget.thinking is not None:
            self._check(self.budget.thinking)
        if (self.budget.resident or self.budget.total) and self.beams > 1:
            raise ApportionError(
                "'inference.resident' and 'inference.total' do not go with beams: leave out 'num_beams'."
            )

    @property
    def answer(self) -> int:
        """Tokens behind the close tag, or all of them where nothing is thought."""
        return ANSWER if self.budget.answer is None else self.budget.answer

    @property
    def forced(self) -> TagIds:
        """The tags as they are forced: where nothing is answered no words lead to an answer.

        Raises:
            ApportionError: No tags.
        """
        if self.tags is None:
            raise ApportionError("'inference.thinking' takes tags of thinking, as the model's tokenizer writes them.")
        return self.tags if self.answer else replace(self.tags, answer=())

    def rounds(self, budget: ThinkingBudget) -> bool:
        """Return whether ends are put off that are known too late to be taken back token by token."""
        return bool(budget.least or budget.ignore) and not waits_by_token(self.forced)

    def opened(self, request: Request) -> Request:
        """Return the request as the model reads it, with the budget that its thinking is held to.

        Raises:
            ApportionError: A budget of its own that cannot be held to.
        """
        if request.thinking is not None:
            if self.budget.thinking is None:
                raise ApportionError("A request has 'thinking' of its own: give 'inference.thinking' for all others.")
            self._check(request.thinking)
        if self.budget.thinking is None:
            return request
        thinking = self.budget.thinking if request.thinking is None else request.thinking
        return replace(request, ids=self.forced.opened(request.ids), thinking=thinking)

    def rooms(self, requests: Sequence[Request]) -> list[tuple[int, str]]:
        """Return how many tokens each request of a batch may be answered with, and the key that says so."""
        width, found = max(len(request.ids) for request in requests), []
        for request in requests:
            of = (len(request.ids), width, request.thinking)
            if of not in self._rooms:
                most = self._longest(len(request.ids), request.thinking)
                room = affordable(self.cache, self.prices, len(request.ids), self.budget, most, padded=width)
                self._rooms[of] = room
            found.append(self._rooms[of])
        return found

    def _longest(self, prompt: int, thinking: ThinkingBudget | None) -> int:
        if thinking is None:
            return self.answer
        if thinking.most is None:
            room = (self.positions or prompt) - prompt
            if room < 1:
                raise ApportionError(
                    f"A prompt of {prompt:,} tokens leaves nothing to think in: the model has {self.positions:,} positions."
                )
            return room
        return thinking.most + len(self.forced.forced) + self.answer

    def _check(self, budget: ThinkingBudget) -> None:
        # What is forced, and the end of texts, are looked at there.
        ThinkingForcer(self.forced, 0, [ThinkingBudget(most=budget.most)], ends=self.ends)
        if budget.most is None and self.positions is None:
            raise ApportionError(
                "'inference.thinking' is 'all', and this model does not say how long its texts may be."
            )
        if not (budget.least or budget.ignore):
            return
        if not self.forced.wait:
            raise ApportionError(
                "'thinking.wait' is a word that the model's tokenizer cannot write: give one that it can, or leave out "
                "'least' and 'ignore'."
            )
        if self.beams > 1:
            raise ApportionError("'thinking.least' and 'thinking.ignore' do not go with beams: leave out 'num_beams'.")
        flops = self.budget.total is not None and self.budget.total.unit == "flops"
        if self.rounds(budget) and (flops or self.budget.resident is not None):
            raise ApportionError(
                "'least' and 'ignore' with a close tag or a 'wait' of several tokens read the text again, for which "
                "'inference.resident' and a 'total' in FLOPs are not held: leave them out, or give 'total' in tokens."
            )
