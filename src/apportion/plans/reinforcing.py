"""A recipe of reinforcement: a finished run, problems, budgets of thinking, and what may be spent on roll-outs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from apportion._config import Config, validate
from apportion._errors import ApportionError
from apportion.budget import Budget
from apportion.mixtures import MIXTURES
from apportion.plans.recipe import LARGEST_SEED, Recipe, ValidationSpec, as_block, check_arguments
from apportion.runs import is_run, read_run
from apportion.tasks import TasksSpec
from apportion.tasks.files import expand
from apportion.thinking.tags import ThinkingTags
from apportion.training.rl.spec import RlSpec

# Share of the budget between measurements, where the recipe says nothing.
EVERY = 0.25
# Of the training block, what the roll-outs decide.
_OWNED = {"per_device_train_batch_size": "'rl.prompts' and 'rl.rollouts' decide what a step is"}


class ReinforceRecipe(Config):
    """Problems to be thought about within budgets, as the YAML file says it.

    ``budget`` is in generated tokens (``{generated: 2M}``) or FLOPs. ``validation`` says how often, and on how many problems
    of each task's reporting half, the accuracy at each budget is measured. ``thinking`` left out is the start's.
    """

    rl: RlSpec
    thinking: ThinkingTags | None = None
    tasks: TasksSpec
    budget: str | int | float | dict[str, str | int | float]
    mixture: dict[str, Any] = Field(default_factory=lambda: {"type": "uniform"})
    validation: ValidationSpec = ValidationSpec()
    training: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    @field_validator("budget")
    @classmethod
    def _readable(cls, value: Any) -> Any:  # noqa: ANN401
        unit = Budget.parse(value, 10**15).unit
        if unit not in ("generated", "flops"):
            raise ValueError("must be in generated tokens or in FLOPs: {generated: 2M}, or {total: 1e15 FLOPs}")
        return value

    @field_validator("mixture", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return as_block("mixture", value)

    @property
    def every(self) -> float:
        """Share of the budget between measurements."""
        return self.validation.every or EVERY

    @property
    def start(self) -> Path:
        """The folder of the run that it starts from."""
        return expand(self.rl.start)

    def inner(self) -> Recipe:
        """Return the recipe of training on the same tasks with the start's model, whose data and draws these are.

        Its budget is none of this one's.
        """
        values = {key: value for key, value in self.resolved().items() if key not in ("rl", "thinking")}
        return validate(Recipe, {**values, "model": {"name": str(self.start / "model")}, "budget": "100%"}, "")

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain values with every default written out: enough to rerun."""
        values = self.model_dump(mode="json", exclude_none=True)
        method = MIXTURES.build(self.mixture, "mixture").settled(False)
        return {**values, "mixture": MIXTURES.block(method, "mixture")}

    @property
    def title(self) -> str:
        """What a run of it is called while it runs."""
        return f"{self.rl.title}, seed {self.seed}"


def is_reinforcing(values: Mapping[str, Any]) -> bool:
    """Return whether a recipe is one of reinforcement."""
    return "rl" in values


def parse_reinforcing(values: Mapping[str, Any]) -> ReinforceRecipe:
    """Check every key and value, and the run that it starts from; loads neither torch nor TRL.

    Raises:
        ApportionError: Anything unknown, missing or out of range, with the nearest name; or a start that is none.
    """
    if not is_reinforcing(values):
        raise ApportionError(
            "The recipe has no block 'rl', which says where to start and within which budgets: see 'apportion train'."
        )
    recipe = validate(ReinforceRecipe, values, "")
    MIXTURES.check(recipe.mixture)
    for key in recipe.training:
        if key in _OWNED:
            raise ApportionError(f"'training.{key}' cannot be set here: {_OWNED[key]}.")
    check_arguments(recipe.training)
    method = MIXTURES.build(recipe.mixture, "mixture")
    if method.needs():
        raise ApportionError(
            f"'mixture.type: {recipe.mixture['type']}' follows losses or gradients, of which reinforcement has none: take "
            "uniform, proportional, temperature or fixed."
        )
    return recipe.model_copy(update={"thinking": _started(recipe)})


def _started(recipe: ReinforceRecipe) -> ThinkingTags:
    """Return the tags that the start's model thinks between: those of this recipe, or of the start's own.

    Raises:
        ApportionError: No finished run of a whole model, or one that names no tags.
    """
    if not recipe.start.is_dir() or not is_run(recipe.start):
        raise ApportionError(f"'rl.start' is '{recipe.rl.start}', which is no run: name the folder of a finished one.")
    run = read_run(recipe.start)
    if not run.finished:
        raise ApportionError(
            f"'rl.start' is '{recipe.rl.start}', a run that is not finished: the command that began it goes on with it."
        )
    if run.recipe.get("lora") is not None:
        raise ApportionError(
            f"The run '{recipe.rl.start}' trained an adapter, and reinforcement trains whole models: start from a run "
            "without 'lora'."
        )
    if recipe.thinking is not None:
        return recipe.thinking
    block = run.recipe.get("thinking")
    if block is None:
        raise ApportionError(
            f"The run '{recipe.rl.start}' names no tags to think between: start from one whose recipe has a "
            "block 'thinking', such as recipes/thinking/sft.yaml, or give that block here."
        )
    known = {key: block[key] for key in ThinkingTags.model_fields if key in block}
    return validate(ThinkingTags, known, "thinking")
