"""An inference recipe: a model, prompts, the budget of a request and a cache, priced before anything is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from apportion._config import Config, validate
from apportion._errors import ApportionError
from apportion.budget import InferenceBudget, Served, means
from apportion.caches import CACHES
from apportion.models.specs import ModelSpec
from apportion.plans.recipe import as_block
from apportion.thinking.tags import ThinkingTags


class ServingRecipe(Config):
    """Prompts to be answered, as the YAML file says it.

    ``model`` is a finished run's folder, a model's folder or Hub name, or ``config`` and ``tokenizer`` of one that is only
    priced. ``prompts``: JSON Lines with ``prompt`` or ``messages``. ``thinking``: what it stands between, where
    ``inference`` has some.
    """

    model: ModelSpec
    prompts: str
    inference: InferenceBudget = InferenceBudget()
    thinking: ThinkingTags | None = None
    cache: dict[str, Any] = Field(default_factory=lambda: {"type": "dense"})

    @field_validator("model", "cache", mode="before")
    @classmethod
    def _named(cls, value: object, info: ValidationInfo) -> object:
        return as_block(str(info.field_name), value)

    @field_validator("model")
    @classmethod
    def _as_it_is(cls, value: ModelSpec) -> ModelSpec:
        if wrong := value.model_fields_set & {"dtype", "attention"}:
            raise ValueError(f"has no '{min(wrong)}' here: what answers is loaded as its own config says")
        return value


@dataclass(frozen=True)
class ServingPlan:
    """What answers of full length would take: on average over the prompts, and of the longest one.

    ``mean`` and ``longest`` hold the fields of `apportion.budget.Served`, and ``a_step`` what a decode step of theirs reads
    and keeps. ``binds`` are the keys of the budget that the longest request runs into, the first one first, each with the
    tokens that are generated before; 0 is at the prompt.
    """

    model: str
    prompts: int
    inference: Mapping[str, Any]
    cache: Mapping[str, Any]
    mean: Mapping[str, Any]
    longest: Mapping[str, Any]
    binds: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)


def parse_serving(values: Mapping[str, Any]) -> ServingRecipe:
    """Check every key and value of an inference recipe; loads neither torch nor transformers for a typo.

    Raises:
        ApportionError: Anything unknown, missing or out of range; the message gives the path and the nearest name.
    """
    recipe = validate(ServingRecipe, values, "")
    CACHES.check(recipe.cache)
    if recipe.inference.thinking is not None and recipe.inference.thinking.most is None:
        raise ApportionError("'inference.thinking' has no 'most': give the tokens that a plan is to price.")
    return recipe


def plan_serving(recipe: ServingRecipe) -> ServingPlan:
    """Price a recipe; answers nothing, and loads no weights but those of a model in a folder.

    Raises:
        ApportionError: Prompts that cannot be read or are too long, a model that does not load, or a budget that the method
            cannot keep.
    """
    from apportion.decoding.attach import budgeted_cache
    from apportion.decoding.price import Priced, price
    from apportion.decoding.requests import ANSWER, read_prompts, requests_of
    from apportion.plans.answering import cache_method, priced_alone
    from apportion.tasks.files import expand
    from apportion.thinking.forcer import waits_by_token

    method = cache_method(recipe.cache)
    rows = read_prompts(expand(recipe.prompts))
    answering = priced_alone(recipe.model)
    budget = recipe.inference
    if budget.answer is None:
        budget = budget.model_copy(update={"answer": ANSWER})
    tags = answering.tags(recipe.thinking, budget)
    requests = requests_of(rows, answering.tokenizer, budget, answering.positions, tags)
    answering.engine(method, budget, tags=tags)  # refuses what generation would
    if budget.thinking and tags and (budget.thinking.least or budget.thinking.ignore) and not waits_by_token(tags):
        raise ApportionError(
            "'least' and 'ignore' with a close tag or a 'wait' of several tokens read the text again, nobody knows how "
            "often: a plan prices them with tags of one token each."
        )
    config: Any = answering.model.config
    cache = budgeted_cache(config, method, budget.kv)
    lengths = [len(request.ids) for request in requests]
    prices = answering.prices
    inserted = 0 if tags is None else len(tags.forced if budget.answer else tags.close)
    by_length: dict[int, Priced] = {
        length: price(cache, prices, length, budget, inserted=inserted) for length in sorted(set(lengths))
    }
    served = [by_length[length].served for length in lengths]
    longest = by_length[max(lengths)]
    return ServingPlan(
        model=answering.name,
        prompts=len(rows),
        inference=budget.written(),
        cache=CACHES.block(method, "cache"),
        mean={**means(served), "a_step": _a_step(served)},
        longest={**means([longest.served]), "a_step": _a_step([longest.served])},
        binds=longest.binds,
    )


def _a_step(served: Sequence[Served]) -> dict[str, float]:
    steps = max(sum(one.steps for one in served), 1)
    return {
        "read": sum(one.read for one in served) / steps,
        "resident": sum(one.resident_steps for one in served) / steps,
    }
