"""Roll-outs: problems thought about, the thinking cut at every budget, and each cut answered; made and charged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from apportion.budget import InferenceBudget, Served, ThinkingBudget
from apportion.budget.prices import Prices, Work
from apportion.caches import CACHES
from apportion.decoding.engine import Answered, Engine
from apportion.decoding.requests import Request
from apportion.thinking.rewards import judged
from apportion.thinking.tags import TagIds, ThinkingTags
from apportion.training.rl.spec import RlSpec
from apportion.training.rl.traces import Ids, Problem, Summary, Trace, segment_of

# Rows that are generated at once.
ROWS = 256
# Told what a request took, and how many tokens of its prompt were inserted behind a cut.
Charge = Callable[[Served, int], None]


@dataclass(frozen=True)
class Step:
    """What a roll-out with all of its answers takes at most: tokens generated, FLOPs of that, FLOPs of training on it."""

    generated: int
    generate: float
    train: float


@dataclass(frozen=True)
class Roller:
    """Makes traces of a model.

    Attributes:
        tokenizer: The model's.
        prices: Of its passes.
        tags: Of thinking, as text, and ``ids`` as tokens.
        spec: Budgets, answers, rewards.
    """

    tokenizer: PreTrainedTokenizerBase
    prices: Prices
    tags: ThinkingTags
    ids: TagIds
    spec: RlSpec

    def traces(
        self, model: nn.Module, problems: Sequence[Problem], charge: Charge, *, summaries: int, seed: int
    ) -> list[Trace]:
        """Return a trace of each problem.

        Args:
            model: A transformers causal language model.
            problems: Each is thought about once; a group repeats its problem.
            charge: Told what each request took, and how much of its prompt was inserted.
            summaries: Answers at each budget.
            seed: Of the draws.
        """
        was = model.training
        model.eval()
        try:
            begun = self._thought(model, problems, charge, seed)
            cuts = [self._cuts(one, summaries) for one in begun]
            written = self._answers(model, [cut for each in cuts for cut in each], charge, seed)
        finally:
            model.train(was)
        found, at = [], 0
        for problem, one, each in zip(problems, begun, cuts, strict=True):
            found.append(self._trace(problem, one, written[at : at + len(each)], summaries))
            at += len(each)
        return found

    def _engine(self, model: nn.Module, thinking: ThinkingBudget | None) -> Engine:
        # All of the vocabulary: the library's default draws from the fifty likeliest tokens, which is another policy.
        sampling = {"do_sample": True, "temperature": self.spec.temperature, "top_k": 0}
        budget = InferenceBudget(thinking=thinking, answer=self.spec.answer)
        return Engine(
            model,
            self.tokenizer,
            self.prices,
            CACHES.build("dense"),
            budget,
            batch_size=ROWS,
            sampling=sampling,
            tags=self.ids if thinking is not None else None,
        )

    def _thought(self, model: nn.Module, problems: Sequence[Problem], charge: Charge, seed: int) -> list[_Begun]:
        engine = self._engine(model, ThinkingBudget(most=self.spec.budgets[-1]))
        requests = [Request(problem.row, problem.ids) for problem in problems]
        found = []
        for batch in engine.answer(requests, seed=2 * seed):
            for answered in batch:
                charge(answered.served, 0)
                found.append(_begun(answered, self.ids))
        return found

    def _cuts(self, begun: _Begun, summaries: int) -> list[_Cut]:
        """Return what is to be answered of a thinking, budget by budget; its own answer is the last budget's first."""
        budgets = self.spec.budgets
        end = segment_of(len(begun.thinking), budgets)
        found = []
        for budget in range(len(budgets)):
            shared = budget >= end
            kept = begun.thinking if shared else begun.thinking[: budgets[budget]]
            close = begun.tail if shared else self.ids.forced
            own = 1 if budget == len(budgets) - 1 else 0
            cut = _Cut((*begun.prompt, *kept, *close), 0 if shared else len(close))
            found += [cut] * (summaries - own)
        return found

    def _answers(self, model: nn.Module, cuts: Sequence[_Cut], charge: Charge, seed: int) -> list[Ids]:
        """Return the tokens that were written behind each cut; those of like length share a batch."""
        order = sorted(range(len(cuts)), key=lambda k: len(cuts[k].ids))
        found: list[Ids] = [()] * len(cuts)
        batches = self._engine(model, None).answer([Request({}, cuts[k].ids) for k in order], seed=2 * seed + 1)
        for place, answered in zip(order, (one for batch in batches for one in batch), strict=True):
            charge(answered.served, cuts[place].inserted)
            found[place] = answered.written
        return found

    def _trace(self, problem: Problem, begun: _Begun, written: Sequence[Ids], summaries: int) -> Trace:
        budgets = self.spec.budgets
        flat = [*written[: (len(budgets) - 1) * summaries], begun.answer, *written[(len(budgets) - 1) * summaries :]]
        cuts = tuple(
            tuple(self._summary(problem, begun, budget, ids) for ids in flat[budget * summaries :][:summaries])
            for budget in range(len(budgets))
        )
        return Trace(
            problem,
            begun.thinking,
            begun.tail,
            begun.chosen,
            self.ids.forced,
            segment_of(len(begun.thinking), budgets),
            cuts,
        )

    def _summary(self, problem: Problem, begun: _Begun, budget: int, ids: Ids) -> Summary:
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        shown: Any = self.tokenizer.decode([token for token in ids if token not in ends])
        right, formed = judged(self.tags.close + shown, self.tags, problem.references)
        most = self.spec.budgets[budget]
        reward = self.spec.rewards.worth(
            right=right, formed=formed, thinking=min(len(begun.thinking), most), budget=most
        )
        return Summary(ids, shown, reward, right)

    def at_most(self, prompt: int, summaries: int) -> Step:
        """Return what one trace takes at full length.

        Args:
            prompt: Tokens of the problem.
            summaries: Answers at each budget.
        """
        close, answer, budgets = len(self.ids.forced), self.spec.answer, self.spec.budgets
        behind = close + answer
        flops = self._generated(prompt, budgets[-1] + behind)
        for budget in budgets:
            others = summaries - (budget == budgets[-1])
            flops += others * self._generated(prompt + budget + close, answer)
        row = prompt + budgets[-1] + len(budgets) * summaries * behind
        return Step(
            generated=budgets[-1] + len(budgets) * summaries * behind,
            generate=flops,
            train=self.prices.train(Work(row, row**2)),
        )

    def _generated(self, prompt: int, new: int) -> float:
        """Return the FLOPs of reading a prompt and writing so many tokens behind it, the cache kept."""
        steps = (self.prices.forward(Work(1, prompt + done)) for done in range(1, new))
        return self.prices.forward(Work(prompt, prompt**2)) + sum(steps)


@dataclass(frozen=True)
class _Cut:
    """What is read before an answer, and how many tokens of it were put there."""

    ids: Ids
    inserted: int


@dataclass(frozen=True)
class _Begun:
    """A thinking as it was written, with its tail and its own answer."""

    prompt: Ids
    thinking: Ids
    tail: Ids
    chosen: tuple[bool, ...]
    answer: Ids


def _begun(answered: Answered, tags: TagIds) -> _Begun:
    thinking = answered.thinking_ids
    behind = len(thinking) + len(tags.forced if answered.forced else tags.close)
    chosen = tuple(kind != "inserted" for kind in answered.kinds[len(thinking) : behind])
    tail = answered.written[len(thinking) : behind]
    return _Begun(answered.request.ids, thinking, tail, chosen, answered.written[behind:])
