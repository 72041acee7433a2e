"""The recipe: one YAML file, one run. Every key is checked, every default written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from apportion._config import Config, plain, unknown_key, validate
from apportion._declared import declared
from apportion._errors import ApportionError, shortened
from apportion._yaml import load_yaml
from apportion.budget import Budget
from apportion.budget.cadence import read_share
from apportion.evaluation.spec import EvaluateSpec
from apportion.mixtures import MIXTURES
from apportion.models import KINDS
from apportion.models.specs import LoraSpec, ModelSpec
from apportion.objectives import OBJECTIVES
from apportion.selections import SELECTIONS
from apportion.tasks import TasksSpec
from apportion.tasks.goals import TargetsSpec
from apportion.thinking.spec import ThinkingSpec
from apportion.weights import WEIGHTS

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from apportion.mixtures._mixture import Mixture
    from apportion.models import ModelKind
    from apportion.objectives._objective import Objective
    from apportion.selections._selection import Selection
    from apportion.weights._weighting import Weighting

# A block may be given by its one word; this is the key that the word stands for.
_WORDS = {
    "model": "name",
    "kind": "type",
    "objective": "type",
    "mixture": "type",
    "weights": "type",
    "selection": "type",
    "cache": "type",
}

# Blocks whose types have the same settings.
_SHARED = frozenset({"rl"})

# What an inference recipe has beside 'model', and a recipe of training has not: see `plans.serving`.
SERVING = frozenset({"prompts", "inference", "cache"})

# NumPy's legacy generator, which Hugging Face seeds too, takes no more.
LARGEST_SEED = 2**32 - 1


# Checkpoints that are kept while a run goes on.
NEWEST = 2

# Shares of the budget between validations that a run's price may settle on, the most frequent first.
CADENCES = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0)


class ValidationSpec(Config):
    """How often the report's validation losses are measured, and on how many examples.

    ``every`` None is settled by what a validation costs (`plans.spending.with_cadence`). ``examples_per_target`` are of each
    target that has data of its own. ``half`` is that of the validation splits which is measured: the report's, or in the
    trials of a search, which must not see it, the one to steer by.
    """

    every: float | None = None
    examples_per_task: int = Field(default=64, ge=1)
    examples_per_target: int = Field(default=256, ge=1)
    half: Literal["report", "steer"] = "report"

    @field_validator("every", mode="before")
    @classmethod
    def _share(cls, value: object) -> float | None:
        return None if value is None else read_share(value)

    @property
    def cadence(self) -> float:
        """The share of the budget between validations, the most frequent one where none is settled yet."""
        return self.every or CADENCES[0]


class Recipe(Config):
    """One run, as the YAML file says it.

    ``checkpoints: all`` keeps that of each validation, and of the end; left out, the newest two are kept while it runs.
    """

    model: ModelSpec
    lora: LoraSpec | None = None
    kind: dict[str, Any] = Field(default_factory=lambda: {"type": "causal"})
    tasks: TasksSpec
    thinking: ThinkingSpec | None = None
    budget: str | int | float | dict[str, str | int | float]
    targets: TargetsSpec | None = None
    objective: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    selection: dict[str, Any] = Field(default_factory=lambda: {"type": "all"})
    mixture: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    weights: dict[str, Any] = Field(default_factory=lambda: {"type": "uniform"})
    packing: bool = False
    checkpoints: Literal["all"] | None = None
    validation: ValidationSpec = ValidationSpec()
    evaluate: EvaluateSpec | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, le=LARGEST_SEED)

    @field_validator("budget", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        for part in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(part, bool):  # pydantic would count it as 1
                raise ValueError("must be text or a number or a mapping of settings")
        return value

    @field_validator("budget")
    @classmethod
    def _readable(cls, value: str | int | float | dict[str, Any]) -> str | int | float | dict[str, Any]:
        # Of how many tokens a share is taken, the data will say.
        if Budget.parse(value, 10**15).unit == "generated":
            raise ValueError("must be in supervised or processed tokens, or in FLOPs: training generates none")
        return value

    @field_validator("packing")
    @classmethod
    def _apart(cls, value: bool, info: ValidationInfo) -> bool:
        model = info.data.get("model")
        # transformers tells packed examples apart by their positions here only where each batch is a single row.
        if value and model is not None and model.attention == "flash_attention_2":
            raise ValueError("needs 'model.attention' sdpa or eager, which keep the examples of a row apart")
        return value

    @field_validator(*(key for key in _WORDS if key != "cache"), mode="before")
    @classmethod
    def _named(cls, value: object, info: ValidationInfo) -> object:
        return as_block(str(info.field_name), value)

    @field_validator("objective", mode="before")
    @classmethod
    def _objective(cls, value: object, info: ValidationInfo) -> object:
        # Of targets the mean counts; tasks that are wanted alike should be learnt, each as far as it can be.
        return value or {"type": "reducible" if info.data.get("targets") is None else "mean"}

    @field_validator("mixture")
    @classmethod
    def _mixture(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # What was selected is trained on as it is; of everything, all tasks alike.
        selects = (info.data.get("selection") or {}).get("type") not in (None, "all")
        return value or {"type": "proportional" if selects else "uniform"}

    def model_kind(self) -> ModelKind:
        """Return the kind of model the recipe names."""
        return KINDS.build(self.kind, "kind")

    def aim(self) -> Objective:
        """Return the objective the recipe names."""
        return OBJECTIVES.build(self.objective, "objective")

    def chosen(self) -> Selection:
        """Return the selection the recipe names."""
        return SELECTIONS.build(self.selection, "selection")

    def method(self) -> Mixture:
        """Return the mixture the recipe names."""
        return MIXTURES.build(self.mixture, "mixture").settled(self.targets is not None)

    def weighting(self) -> Weighting:
        """Return the weighting the recipe names."""
        return WEIGHTS.build(self.weights, "weights")

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain values with every default written out: enough to rerun."""
        values = self.model_dump(mode="json", exclude_none=True)
        chosen = {
            "kind": self.model_kind(),
            "objective": self.aim(),
            "selection": self.chosen(),
            "mixture": self.method(),
            "weights": self.weighting(),
        }
        for family, method in chosen.items():
            values[family] = {"type": values[family]["type"], **plain(method)}
        return values

    @property
    def title(self) -> str:
        """What a run of it is called while it runs: its selection, where it has one, its mixture and its seed."""
        chosen = [block["type"] for block in (self.selection, self.mixture) if block["type"] != "all"]
        return f"{', '.join(chosen)}, seed {self.seed}"

    def arguments(self, output: Path) -> TrainingArguments:
        """Return Hugging Face's arguments, with what the budget decides set.

        Raises:
            ApportionError: Values that do not go together, or an optimizer or schedule that cannot be built from them.
        """
        from transformers import TrainingArguments

        from apportion.plans.arguments import training_arguments

        args = training_arguments(self.training, self.seed, output, TrainingArguments)
        args.save_total_limit = None if self.checkpoints == "all" else NEWEST
        return args


def as_block(key: str, value: object) -> object:
    """Return a block that is given by one word, such as ``mixture: adapt``, as a mapping; anything else as it is."""
    return {_WORDS[key]: value} if key in _WORDS and isinstance(value, str) else value


def is_serving(values: Mapping[str, Any]) -> bool:
    """Return whether a recipe is one of inference: whether it has more of such a one's keys than of training's."""
    theirs = Recipe.model_fields.keys() - {"model"}
    return len(SERVING & values.keys()) > len(theirs & values.keys())


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a recipe file as plain values.

    Raises:
        ApportionError: Missing, unreadable, or no YAML mapping; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ApportionError(f"The recipe '{path}' cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ApportionError(f"The recipe '{path}' is not UTF-8 text.") from None
    values = load_yaml(text, f"The recipe '{path}'")
    if not isinstance(values, dict):
        raise ApportionError(f"The recipe '{path}' is not a mapping of keys.")
    return values


def overridden(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with ``a.b=c`` assignments applied, c read as YAML; new blocks are made as needed.

    Raises:
        ApportionError: An assignment without '=', or a path through a value that is no mapping.
    """
    result: dict[str, Any] = dict(values)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path.strip():
            raise ApportionError(f"'--set {assignment}' needs the form key=value, such as mixture.floor=0.2.")
        value = load_yaml(text, f"'--set {shortened(assignment)}': the value")
        result = _put(result, path.strip().split("."), value, assignment)
    return result


def _put(values: Mapping[str, Any], keys: list[str], value: object, said: str) -> dict[str, Any]:
    head, *rest = keys
    if not rest:
        return {**values, head: value}
    inner = {} if values.get(head) is None else as_block(head, values[head])
    if not isinstance(inner, Mapping):
        raise ApportionError(f"'--set {said}': '{head}' is no mapping of settings.")
    if rest == ["type"] and inner.get("type") != value and head not in _SHARED:
        inner = {}  # another method's settings would not fit
    return {**values, head: _put(inner, rest, value, said)}


def sketch(values: Mapping[str, Any]) -> Recipe:
    """Check all of a recipe that can be checked without torch, transformers or a module of the user's own.

    Raises:
        ApportionError: Anything unknown, missing or out of range; the message gives the path and the nearest name.
    """
    if is_serving(values):
        raise ApportionError(
            "This recipe is one of inference, which 'apportion plan' prices: one that trains has 'tasks' and 'budget'."
        )
    recipe = validate(Recipe, {k: v for k, v in values.items() if k != "arms"}, "")
    OBJECTIVES.check(recipe.objective)
    SELECTIONS.check(recipe.selection)
    MIXTURES.check(recipe.mixture)
    WEIGHTS.check(recipe.weights)
    check_arguments(recipe.training)
    if KINDS.check(recipe.kind) in KINDS:
        recipe.model_kind().check(recipe)
    return recipe


def check_arguments(block: Mapping[str, Any]) -> None:
    """Refuse a key of a ``training`` block that Hugging Face does not have, without loading it.

    Raises:
        ApportionError: As said, with the nearest.
    """
    known = declared("transformers.training_args:TrainingArguments")
    for key in block:
        if known and key not in known:
            raise ApportionError(unknown_key(f"training.{key}", sorted(known)))


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check every key and value of a recipe.

    Raises:
        ApportionError: Anything unknown, missing or out of range; the message gives the path and the nearest name.
    """
    recipe = sketch(values)
    # A typo is answered before these are loaded.
    from apportion.models.loading import check_model_type
    from apportion.plans.arguments import checked

    recipe = recipe.model_copy(update={"training": checked(recipe.training)})
    check_model_type(recipe.model)
    # Code of the user's own is run last, when nothing else is wrong.
    families = (
        (recipe.objective, recipe.aim),
        (recipe.selection, recipe.chosen),
        (recipe.mixture, recipe.method),
        (recipe.weights, recipe.weighting),
        (recipe.kind, recipe.model_kind),
    )
    for _, build in sorted(families, key=lambda family: ":" in str(family[0]["type"])):
        build()
    kind = recipe.model_kind()
    kind.check(recipe)
    if not (kind.selects or recipe.chosen().keeps_all):
        raise kind.refusal("'selection'")
    if recipe.evaluate is not None and not kind.answers:
        raise kind.refusal("'evaluate'")
    _check_needs(recipe, kind)
    return recipe


def _check_needs(recipe: Recipe, kind: ModelKind) -> None:
    """Refuse methods that read of a model what its kind does not give."""
    blocks = (
        (f"'weights.type: {recipe.weights['type']}'", recipe.weighting().needs()),
        (f"'mixture.type: {recipe.mixture['type']}'", recipe.method().needs()),
    )
    for said, signals in blocks:
        for signal in signals:
            if signal.reads not in kind.gives:
                raise kind.refusal(
                    f"{said}, which reads {signal.reads},", f"; {signal.instead}" if signal.instead else ""
                )
