"""A recipe's data, budget and prices, put together once and used by plans and runs alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments

from apportion._config import validate
from apportion._errors import ApportionError
from apportion._ranks import world
from apportion.budget import Budget, Ledger
from apportion.budget.allowance import Allowance
from apportion.budget.prices import Prices, Work
from apportion.mixtures._mixture import Mixture, TaskSizes
from apportion.models.loading import load_tokenizer
from apportion.models.specs import ModelSpec
from apportion.plans.anchors import find_anchors
from apportion.plans.recipe import Recipe
from apportion.signals._records import Bench
from apportion.tasks import EncodedCollection, TasksSpec, load_encoded
from apportion.tasks.batches import Batch, work_of
from apportion.tasks.targets import Targets, named_targets, targets_of_tasks
from apportion.tasks.validation import Picked, batched, by_length
from apportion.training.mixture_runner import MixtureRunner
from apportion.training.recorder import Recorder
from apportion.training.sampler import TaskSampler
from apportion.training.stream import Stream
from apportion.training.trainer import BudgetTrainer
from apportion.training.weights_runner import WeightsRunner


@dataclass(frozen=True)
class Data:
    """What the tasks look like to the model.

    ``held_out``: the two halves of the tasks' validation splits. ``targets``: what the model should be good at; these
    halves, unless the recipe says otherwise.
    """

    tokenizer: PreTrainedTokenizerBase
    tasks: EncodedCollection
    held_out: Targets
    targets: Targets
    findings: tuple[str, ...]

    @property
    def sizes(self) -> TaskSizes:
        """Examples and supervised tokens of each train split."""
        return TaskSizes(
            self.tasks.names,
            torch.tensor([len(task.train) for task in self.tasks.tasks], dtype=torch.float64),
            torch.tensor([int(task.train.supervised.sum()) for task in self.tasks.tasks], dtype=torch.float64),
            self.targets.importance if self.targets.are_tasks else torch.ones(len(self.tasks.tasks)).double(),
        )

    @property
    def pad_id(self) -> int:
        """The padding token."""
        return int(self.tokenizer.pad_token_id)


def load_data(recipe: Recipe) -> Data:
    """Read, split and encode the recipe's tasks, from the cache where it can.

    Raises:
        ApportionError: Anything wrong with the data or the tokenizer.
    """
    # Arms and seeds of a comparison share their data: loaded once a process, and again when its bytes change.
    model, tasks = (json.dumps(block.model_dump(mode="json")) for block in (recipe.model, recipe.tasks))
    tokenizer, encoded = _encoded(model, tasks, recipe.tasks.fingerprint())
    data = _split(tokenizer, recipe.model_kind().encode(encoded))
    return data if recipe.targets is None else replace(data, targets=named_targets(data.held_out, recipe.targets.tasks))


@lru_cache(maxsize=2)
def _encoded(model: str, tasks: str, fingerprint: str) -> tuple[PreTrainedTokenizerBase, EncodedCollection]:
    spec = validate(TasksSpec, json.loads(tasks), "tasks")
    tokenizer = load_tokenizer(validate(ModelSpec, json.loads(model), "model"), spec)
    return tokenizer, load_encoded(spec, tokenizer, spec.max_length)


@lru_cache(maxsize=2)
def _split(tokenizer: PreTrainedTokenizerBase, encoded: EncodedCollection) -> Data:
    held_out, exceptions = targets_of_tasks(encoded)
    return Data(tokenizer, encoded, held_out, held_out, (*encoded.findings, *exceptions))


def read_budget(recipe: Recipe, data: Data, method: Mixture) -> Budget:
    """Read the budget and refuse one that the mixture's ``max_epochs`` does not allow.

    Raises:
        ApportionError: No budget, or more than there is to train on.
    """
    budget = Budget.parse(recipe.budget, data.tasks.supervised_total)
    if budget.unit != "flops":
        check_epochs(recipe, data, method, budget, [getattr(task.train, budget.unit) for task in data.tasks.tasks])
    return budget


def check_epochs(
    recipe: Recipe, data: Data, method: Mixture, budget: Budget, worth: Sequence[np.ndarray], beside: float = 0.0
) -> None:
    """Refuse a budget that the mixture's ``max_epochs`` does not let training spend.

    Args:
        recipe: The recipe.
        data: Its tasks.
        method: Its mixture.
        budget: The budget.
        worth: What each train example spends of it, one array a task.
        beside: What is spent of it beside training.

    Raises:
        ApportionError: As said.
    """
    start = method.proportions(method.init(data.sizes)).numpy()
    most = make_sampler(recipe, data, method).most(start, worth) + beside
    if budget.limit > most:
        allowed = f"{most:.3g} FLOPs" if budget.unit == "flops" else f"{most:,.0f}"
        raise ApportionError(
            f"The budget of {budget} is more than 'mixture.max_epochs' = {method.max_epochs:g} allows ({allowed}): lower "
            "the budget or raise the cap."
        )


def make_sampler(recipe: Recipe, data: Data, method: Mixture) -> TaskSampler:
    """Return the seeded draws of this recipe."""
    return TaskSampler(
        [len(task.train) for task in data.tasks.tasks],
        [task.train.supervised for task in data.tasks.tasks],
        seed=recipe.seed,
        unit=method.unit,
        draws=method.draws,
        max_epochs=method.max_epochs,
    )


def make_model(recipe: Recipe, data: Data, *, meta: bool = False) -> torch.nn.Module:
    """Build or load the recipe's model; on the meta device only its shapes."""
    return recipe.model_kind().build(recipe, data.tasks, data.tokenizer, meta=meta)


def reported(recipe: Recipe, data: Data) -> list[Picked]:
    """Return the examples that every method's reported losses are measured on, in the order they are measured in."""
    return by_length([item for items in data.held_out.report for item in items[: recipe.validation.examples_per_task]])


def report_batches(recipe: Recipe, data: Data, args: TrainingArguments) -> list[Batch]:
    """Return the batches of the reported examples."""
    return batched(reported(recipe, data), args.per_device_eval_batch_size, data.pad_id)


@dataclass(frozen=True)
class Setup:
    """What a trainer is made of, and a plan priced from.

    ``train_flops`` prices a step's training, ``step_flops`` what a method measures in it too.
    """

    args: TrainingArguments
    ledger: Ledger
    prices: Prices
    bench: Bench
    mixture: MixtureRunner
    weights: WeightsRunner
    stream: Stream
    report: list[Batch]
    train_flops: Callable[[Work], float]
    step_flops: Callable[[Work], float]

    @property
    def allowance(self) -> Allowance:
        """What may still be spent."""
        return self.bench.allowance

    @property
    def runners(self) -> tuple[MixtureRunner, WeightsRunner]:
        """Those that measure for a method."""
        return self.mixture, self.weights


def recomputes(args: TrainingArguments) -> bool:
    """Return whether activations are recomputed in the backward pass."""
    return bool(args.activation_checkpointing or args.gradient_checkpointing)


def assemble(recipe: Recipe, data: Data, prices: Prices, output: Path) -> Setup:
    """Put ledger, draws and runners together for a model with these prices.

    Raises:
        ApportionError: A budget, mixture, weighting or training argument that does not fit.
    """
    method, weighting = recipe.method(), recipe.weighting()
    args = recipe.arguments(output)
    ledger = Ledger(read_budget(recipe, data, method))
    report = report_batches(recipe, data, args)
    bench = Bench(
        tasks=data.tasks,
        targets=data.targets,
        steer=data.held_out.steer,
        look_ahead=train_pool(data),
        anchors=find_anchors(weighting.needs(), data, recipe.tasks.max_length),
        allowance=Allowance(ledger, reserve=sum(prices.forward(b.work) for b in report)),
        prices=prices,
        batch_size=args.per_device_eval_batch_size,
        pad_id=data.pad_id,
        several=args.gradient_accumulation_steps * world() > 1,
    )
    mixture = MixtureRunner(method, recipe.aim(), data.sizes, bench)
    weights = WeightsRunner(weighting, bench)
    again = recomputes(args)

    def train_flops(work: Work) -> float:
        return prices.train(work, recompute=again)

    def step_flops(work: Work) -> float:
        return train_flops(work) + mixture.step_price(work) + weights.step_price(work)

    stream = Stream(
        data.tasks,
        make_sampler(recipe, data, method),
        ledger,
        bench.allowance,
        step_flops=step_flops,
        train_flops=train_flops,
        micro_batch=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        pad_id=data.pad_id,
        row_length=recipe.tasks.max_length if recipe.packing else None,
    )
    return Setup(args, ledger, prices, bench, mixture, weights, stream, report, train_flops, step_flops)


def check_flop_epochs(recipe: Recipe, data: Data, parts: Setup, ahead: float) -> None:
    """Refuse a budget in FLOPs that the mixture's ``max_epochs`` does not let training spend.

    Args:
        recipe: The recipe.
        data: Its tasks.
        parts: The budget and prices.
        ahead: FLOPs of it that are spent before training.

    Raises:
        ApportionError: As said.
    """
    method = parts.mixture.mixture
    if parts.ledger.budget.unit != "flops" or method.max_epochs is None:
        return
    # What a method measures comes on top of the steps, and is taken to cost as much again at most.
    beside = ahead + (1 / recipe.validation.cadence + 1) * parts.allowance.reserve + parts.weights.opening()
    times = 2 if parts.mixture.signals else 1
    splits = [task.train for task in data.tasks.tasks]
    worth = [
        np.array([times * parts.step_flops(work_of([split.example(i)], [task])) for i in range(len(split))])
        for task, split in enumerate(splits)
    ]
    check_epochs(recipe, data, method, parts.ledger.budget, worth, beside)


def train_pool(data: Data) -> list[list[Picked]]:
    """Return, per task, the training examples that are looked ahead with, in a seeded order."""
    pools: list[list[Picked]] = []
    for index, task in enumerate(data.tasks.tasks):
        order = np.random.default_rng([2, index]).permutation(len(task.train))[:1024]
        pools.append([(index, task.train, int(i)) for i in order])
    return pools


def make_trainer(model: torch.nn.Module, data: Data, parts: Setup, recorder: Recorder, output: Path) -> BudgetTrainer:
    """Return the trainer of a model under the recipe's budget; its checkpoints go below ``output``."""
    return BudgetTrainer(
        model,
        parts.args,
        data.tokenizer,
        stream=parts.stream,
        mixture=parts.mixture,
        weights=parts.weights,
        recorder=recorder,
        ledger=parts.ledger,
        checkpoints=output / "checkpoints",
    )
