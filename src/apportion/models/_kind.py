"""What every kind of model is: a frozen config that builds, prices, prepares and saves it; nobody asks what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

from apportion._config import Config
from apportion._errors import ApportionError
from apportion.models.specs import LoraSpec, ModelSpec

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from apportion.budget.prices import Prices
    from apportion.tasks import EncodedCollection, TasksSpec
    from apportion.tasks.goals import TargetsSpec

Reading = Literal["losses", "gradients", "backward", "steps", "states", "texts", "reference"]
"""What a signal reads: losses of a forward pass, gradients, training's own backward pass, steps of its own that are taken
back, hidden states, texts alone, or the losses of a finished run's model beside its own."""
READINGS: frozenset[str] = frozenset(get_args(Reading))


class Asked(Protocol):
    """What a recipe says that a kind of model may look at."""

    @property
    def model(self) -> ModelSpec:
        """What to load or build."""

    @property
    def lora(self) -> LoraSpec | None:
        """Adapters to train, or None."""

    @property
    def tasks(self) -> TasksSpec:
        """The data."""

    @property
    def targets(self) -> TargetsSpec | None:
        """What the model should be good at, or None for the tasks themselves."""

    @property
    def packing(self) -> bool:
        """Whether several examples share a row."""

    @property
    def training(self) -> dict[str, Any]:
        """Hugging Face's arguments that were set."""

    @property
    def seed(self) -> int:
        """Of everything random."""

    def resolved(self) -> dict[str, Any]:
        """Return the whole recipe as plain values."""


@dataclass(frozen=True)
class Child:
    """A run that has to be there before this one trains: charged to it, in a folder of its own, and resumed alone.

    Attributes:
        folder: Its run folder, inside this run's or that of another run whose child serves again.
        values: Its recipe, as plain values; None where the user named a finished run, whatever its recipe.
        tasks: The names of this run's tasks that it is for.
    """

    folder: Path
    values: Mapping[str, Any] | None
    tasks: tuple[str, ...]


class ModelKind(Config):
    """A kind of model that is trained under a budget.

    A model is any module that `models.read` can call on a batch: a transformers causal language model, or a module that
    declares ``takes_batches`` and returns an `Output`. It has a transformers ``config``, and Trainer saves what its
    ``state_dict`` returns.

    Attributes:
        gives: What signals may read of such a model.
        timed: Whether a few steps of it, on weights made up, say how long a run takes.
        selects: Whether examples of its tasks may be left out by a selection.
        answers: Whether what is trained is a causal language model that benchmarks can be asked of; see `trained`.
    """

    gives: ClassVar[frozenset[str]] = READINGS
    timed: ClassVar[bool] = True
    selects: ClassVar[bool] = True
    answers: ClassVar[bool] = False

    def check(self, asked: Asked) -> None:
        """Refuse a recipe whose other blocks do not go with this kind; loads neither torch nor transformers.

        Raises:
            ApportionError: As said.
        """

    def refusal(self, key: str, instead: str = "") -> ApportionError:
        """Return the error of a recipe's ``key`` that does not go with this kind; ``instead`` adds what does."""
        return ApportionError(f"{key} does not go with this kind of model{instead}.")

    def encode(self, tasks: EncodedCollection) -> EncodedCollection:
        """Return the encoded tasks as this kind trains on them; all of them as they are, unless it says otherwise."""
        return tasks

    def build(
        self,
        asked: Asked,
        tasks: EncodedCollection,
        tokenizer: PreTrainedTokenizerBase,
        *,
        meta: bool = False,
    ) -> nn.Module:
        """Build or load the model.

        Args:
            asked: The recipe.
            tasks: The encoded tasks.
            tokenizer: Theirs, which gives a from-scratch model its vocabulary.
            meta: Build the shapes only, on the meta device, to price a plan; loads no weights.

        Raises:
            ApportionError: It does not load, or does not fit the data.
        """
        raise NotImplementedError

    def prices(self, model: nn.Module) -> Prices:
        """Measure what the model's passes cost, on its shapes alone.

        Raises:
            ApportionError: It uses a kind of product that has no price.
        """
        from apportion.models.flops import ModelFlops

        return ModelFlops.of(model)

    def children(self, asked: Asked, names: tuple[str, ...], out: Path) -> tuple[Child, ...]:
        """Return the runs that have to be there before this one trains.

        Args:
            asked: The recipe.
            names: The tasks' names.
            out: The run folder.

        Raises:
            ApportionError: One that should be there already is not.
        """
        return ()

    def prepare(self, model: nn.Module, children: Sequence[Child], names: tuple[str, ...]) -> None:
        """Make a built model ready to train, once its children are finished; what that costs, ``prices.ahead()`` says."""

    def save_beside(self, model: nn.Module, asked: Asked, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Save into ``folder``, the model's, what has to lie beside what was trained; called before that is saved."""

    def trained(self, folder: Path) -> nn.Module:
        """Load what a finished run left in ``folder``, its ``model/``, as the causal language model that it is.

        Raises:
            ApportionError: It is none, or does not load.
        """
        raise self.refusal("A benchmark")
