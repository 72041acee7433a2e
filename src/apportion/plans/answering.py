"""A model or a finished run that answers prompts: loaded, told how its cache is read, and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget
from apportion.budget.prices import Prices
from apportion.caches import CACHES, CacheMethod
from apportion.decoding.engine import Engine
from apportion.models import KINDS
from apportion.models.loading import build_model, load_tokenizer
from apportion.models.specs import ModelSpec
from apportion.runs import is_run, read_run
from apportion.tasks import TasksSpec
from apportion.thinking.tags import TagIds, ThinkingTags

# What a run of reinforcement, whose recipe names no kind, has trained.
_CAUSAL = {"type": "causal"}
# A tokenizer by name is loaded without looking at any task.
_NO_TASKS = {"source": "playground"}


@dataclass(frozen=True)
class Answering:
    """A loaded model in evaluation mode, with its tokenizer and the prices of its passes."""

    name: str
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    prices: Prices
    # Of its recipe, where it is a run that was trained to think.
    thinking: ThinkingTags | None = None

    @property
    def positions(self) -> int:
        """How many positions it has, for prompt and answer together."""
        config: Any = self.model.config
        return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)

    @property
    def device(self) -> str:
        """Where it is, in words."""
        return str(next(self.model.parameters()).device)

    def tags(self, given: ThinkingTags | None, budget: InferenceBudget) -> TagIds | None:
        """Return what thinking stands between: what is given, the run's own, or ``<think>`` where that is a token.

        Args:
            given: What the caller says, if anything.
            budget: Where it has no thinking there are no tags.

        Raises:
            ApportionError: Tags without thinking, none that are known, or one that the tokenizer cannot write.
        """
        if budget.thinking is None:
            if given is not None:
                raise ApportionError(
                    "Tags of thinking go with a budget of it: give --thinking, or 'inference.thinking'."
                )
            return None
        words, usual = given or self.thinking, ThinkingTags()
        if words is None and {usual.open, usual.close} <= self.tokenizer.get_vocab().keys():
            words = usual
        if words is None:
            raise ApportionError(
                f"The model's tokenizer has no tokens '{usual.open}' and '{usual.close}': say what thinking stands between, "
                "by --tags OPEN,CLOSE or 'thinking: {open, close}' in a recipe."
            )
        return words.ids(self.tokenizer)

    def engine(
        self,
        method: CacheMethod,
        budget: InferenceBudget,
        *,
        batch_size: int = 1,
        sampling: Mapping[str, Any] | None = None,
        tags: TagIds | None = None,
    ) -> Engine:
        """Return what answers with this model; arguments are `Engine`'s."""
        settings: dict[str, Any] = {"batch_size": batch_size, "sampling": dict(sampling or {}), "tags": tags}
        return Engine(self.model, self.tokenizer, self.prices, method, budget, **settings)


def load_answering(place: str | Path) -> Answering:
    """Load a finished run's model, or one by its folder or Hub name.

    Raises:
        ApportionError: No finished run, a kind of model that answers nothing, or a model that does not load.
    """
    path, thinking = Path(place), None
    if path.is_dir() and is_run(path):
        run = read_run(path)
        if not run.finished:
            raise ApportionError(f"The run '{path}' is not finished: the same command that began it goes on with it.")
        # The kind alone: where its data were does not matter any more.
        kind, folder = KINDS.build(run.recipe.get("kind", _CAUSAL), "kind"), path / "model"
        if not kind.answers:
            raise kind.refusal("Answering prompts")
        thinking = _tags_of(run.recipe.get("thinking"))
    else:
        kind, folder = KINDS.build(_CAUSAL, "kind"), path
    spec = ModelSpec(name=str(folder))
    tokenizer = load_tokenizer(spec, TasksSpec.model_validate(_NO_TASKS))
    model = kind.trained(folder).to(_device()).eval()
    return Answering(str(place), model, tokenizer, kind.prices(model), thinking)


def _tags_of(block: Mapping[str, Any] | None) -> ThinkingTags | None:
    """Return the tags of a recipe's block, which says more than these."""
    if block is None:
        return None
    return ThinkingTags.parse({key: value for key, value in block.items() if key in ThinkingTags.model_fields})


def priced_alone(spec: ModelSpec) -> Answering:
    """Return a model as far as prices need it: in a folder it is loaded, any other is built on the meta device.

    Raises:
        ApportionError: As `load_answering`, or a config that is none.
    """
    if spec.name is not None and Path(spec.name).is_dir():
        return load_answering(spec.name)
    tokenizer = load_tokenizer(spec, TasksSpec.model_validate(_NO_TASKS))
    model = build_model(spec, tokenizer, lora=None, seed=0, meta=True).eval()
    prices = KINDS.build(_CAUSAL, "kind").prices(model)
    return Answering(spec.name or "a model from scratch", model, tokenizer, prices)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cache_method(block: Mapping[str, Any] | str | CacheMethod) -> CacheMethod:
    """Return a method from its name, its block or itself.

    Raises:
        ApportionError: No such method, or settings that it does not have.
    """
    return CACHES.build(CACHES.block(block, "cache"), "cache")
