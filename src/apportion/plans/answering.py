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

    @property
    def positions(self) -> int:
        """How many positions it has, for prompt and answer together."""
        config: Any = self.model.config
        return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)

    @property
    def device(self) -> str:
        """Where it is, in words."""
        return str(next(self.model.parameters()).device)

    def engine(
        self,
        method: CacheMethod,
        budget: InferenceBudget,
        *,
        batch_size: int = 1,
        sampling: Mapping[str, Any] | None = None,
    ) -> Engine:
        """Return what answers with this model; arguments are `Engine`'s."""
        sampled = dict(sampling or {})
        return Engine(self.model, self.tokenizer, self.prices, method, budget, batch_size=batch_size, sampling=sampled)


def load_answering(place: str | Path) -> Answering:
    """Load a finished run's model, or one by its folder or Hub name.

    Raises:
        ApportionError: No finished run, a kind of model that answers nothing, or a model that does not load.
    """
    path = Path(place)
    if path.is_dir() and is_run(path):
        run = read_run(path)
        if not run.finished:
            raise ApportionError(f"The run '{path}' is not finished: the same command that began it goes on with it.")
        # The kind alone: where its data were does not matter any more.
        kind, folder = KINDS.build(run.recipe.get("kind", _CAUSAL), "kind"), path / "model"
        if not kind.answers:
            raise kind.refusal("Answering prompts")
    else:
        kind, folder = KINDS.build(_CAUSAL, "kind"), path
    spec = ModelSpec(name=str(folder))
    tokenizer = load_tokenizer(spec, TasksSpec.model_validate(_NO_TASKS))
    model = kind.trained(folder).to(_device()).eval()
    return Answering(str(place), model, tokenizer, kind.prices(model))


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
