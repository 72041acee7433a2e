"""A recipe's data, budget and prices, put together once and used by plans and runs alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from apportion.mixtures._mixture import GradientGuided, LossGuided, Mixture, TaskSizes
from apportion.models.flops import ModelFlops
from apportion.models.loading import build_model, load_tokenizer
from apportion.models.specs import ModelSpec
from apportion.models.tagi.prices import TagiPrices
from apportion.models.tagi.tagi import Tagi
from apportion.plans.anchors import NONE, find_anchors, pool_weights
from apportion.plans.hypernet import cut_texts, make_hypernet
from apportion.plans.recipe import Recipe
from apportion.tasks import EncodedCollection, TasksSpec, load_encoded
from apportion.tasks.batches import Batch, work_of
from apportion.tasks.validation import Picked, batched, by_length, halves
from apportion.training.recorder import Recorder
from apportion.training.sampler import TaskSampler
from apportion.training.steering import Steering
from apportion.training.stream import Stream
from apportion.training.trainer import BudgetTrainer
from apportion.training.weighing import Weighing
from apportion.weights._weighting import Anchored, PoolGuided, StateGuided


@dataclass(frozen=True)
class Data:
    """What the tasks look like to the model."""

    tokenizer: PreTrainedTokenizerBase
    tasks: EncodedCollection
    report: list[list[Picked]]
    steer: list[list[Picked]]
    findings: tuple[str, ...]

    @property
    def sizes(self) -> TaskSizes:
        """Examples and supervised tokens of each train split."""
        return TaskSizes(
            self.tasks.names,
            torch.tensor([len(task.train) for task in self.tasks.tasks], dtype=torch.float64),
            torch.tensor([int(task.train.supervised.sum()) for task in self.tasks.tasks], dtype=torch.float64),
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
    pretrains = recipe.hypernet is not None and recipe.hypernet.stage == "pretrain"
    return _load(model, tasks, recipe.tasks.fingerprint(), pretrains)


@lru_cache(maxsize=2)
def _load(model: str, tasks: str, fingerprint: str, pretrains: bool) -> Data:
    spec = validate(TasksSpec, json.loads(tasks), "tasks")
    tokenizer = load_tokenizer(validate(ModelSpec, json.loads(model), "model"), spec)
    encoded = load_encoded(spec, tokenizer, spec.max_length)
    if pretrains:
        encoded = cut_texts(encoded)
    report, steer, exceptions = halves(encoded)
    return Data(tokenizer, encoded, report, steer, (*encoded.findings, *exceptions))


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
    if recipe.hypernet is not None:
        return make_hypernet(recipe, recipe.hypernet, data.tasks, data.tokenizer, meta=meta)
    return build_model(recipe.model, data.tokenizer, lora=recipe.lora, seed=recipe.seed, meta=meta)


def prices_of(model: torch.nn.Module) -> Prices:
    """Measure what the model's passes cost."""
    return TagiPrices.of(model) if isinstance(model, Tagi) else ModelFlops.of(model)


def reported(recipe: Recipe, data: Data) -> list[Picked]:
    """Return the examples that every method's reported losses are measured on, in the order they are measured in."""
    return by_length([item for items in data.report for item in items[: recipe.validation.examples_per_task]])


def report_batches(recipe: Recipe, data: Data, args: TrainingArguments) -> list[Batch]:
    """Return the batches of the reported examples."""
    return batched(reported(recipe, data), args.per_device_eval_batch_size, data.pad_id)


@dataclass(frozen=True)
class Setup:
    """What a trainer is made of, and a plan priced from; ``train_flops`` prices a step."""

    args: TrainingArguments
    ledger: Ledger
    allowance: Allowance
    flops: Prices
    steering: Steering
    weighing: Weighing
    stream: Stream
    report: list[Batch]
    train_flops: Callable[[Work], float]


def recomputes(args: TrainingArguments) -> bool:
    """Return whether activations are recomputed in the backward pass."""
    return bool(args.activation_checkpointing or args.gradient_checkpointing)


def assemble(recipe: Recipe, data: Data, flops: Prices, output: Path) -> Setup:
    """Put ledger, draws, steering and weighing together for a model with these prices.

    Raises:
        ApportionError: A budget, mixture, weighting or training argument that does not fit.
    """
    method = recipe.method()
    args = recipe.arguments(output)
    ledger = Ledger(read_budget(recipe, data, method))
    report = report_batches(recipe, data, args)
    allowance = Allowance(ledger, reserve=sum(flops.forward(b.work) for b in report))
    steering = Steering(
        method,
        method.init(data.sizes),
        pool=data.steer,
        train_pool=train_pool(data),
        allowance=allowance,
        ledger=ledger,
        flops=flops,
        batch_size=args.per_device_eval_batch_size,
        pad_id=data.pad_id,
    )
    weighing = make_weighing(recipe, data, args, allowance, flops)
    again = recomputes(args)

    def train_flops(work: Work) -> float:
        return flops.train(work, recompute=again)

    def step_flops(work: Work) -> float:
        read = flops.in_run_read(work.tokens) if steering.read_in_step else 0.0
        looked = flops.forward(work) if weighing.looks_twice else 0.0
        return train_flops(work) + read + looked

    if ledger.budget.unit == "flops" and method.max_epochs is not None:
        # What a method measures comes on top of the steps, and is taken to cost as much again at most.
        passes = (1 / recipe.validation.cadence + 1) * allowance.reserve + weighing.anchor_flops
        times = 2 if isinstance(method, LossGuided | GradientGuided) else 1
        splits = [task.train for task in data.tasks.tasks]
        worth = [
            np.array([times * step_flops(work_of([split.example(i)], [task])) for i in range(len(split))])
            for task, split in enumerate(splits)
        ]
        check_epochs(recipe, data, method, ledger.budget, worth, passes)
    stream = Stream(
        data.tasks,
        make_sampler(recipe, data, method),
        ledger,
        allowance,
        step_flops=step_flops,
        train_flops=train_flops,
        micro_batch=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        pad_id=data.pad_id,
        row_length=recipe.tasks.max_length if recipe.packing else None,
    )
    return Setup(args, ledger, allowance, flops, steering, weighing, stream, report, train_flops)


def make_weighing(recipe: Recipe, data: Data, args: TrainingArguments, allowance: Allowance, flops: Prices) -> Weighing:
    """Return the recipe's weighting with its anchors; one by texts counts them here, once a process.

    Raises:
        ApportionError: Anchors that cannot be read, or with which examples cannot be told apart.
    """
    method, anchors = recipe.weighting(), NONE
    if isinstance(method, Anchored):
        anchors = find_anchors(method, data.steer, data.tokenizer, recipe.tasks.max_length)
    embedded = anchors.picked if isinstance(method, StateGuided) else ()
    return Weighing(
        method,
        anchors=batched(embedded, args.per_device_eval_batch_size, data.pad_id),
        anchors_fingerprint=anchors.fingerprint,
        pool=pool_weights(method, data.tasks, anchors) if isinstance(method, PoolGuided) else None,
        several=args.gradient_accumulation_steps * world() > 1,
        allowance=allowance,
        flops=flops,
    )


def train_pool(data: Data) -> list[list[Picked]]:
    """Return, per task, the training examples that `forward` and `unrolled` look ahead with, in a seeded order."""
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
        steering=parts.steering,
        weighing=parts.weighing,
        recorder=recorder,
        ledger=parts.ledger,
        checkpoints=output / "checkpoints",
    )
