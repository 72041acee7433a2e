"""A recipe's data, budget and prices, put together once and used by plans and runs alike."""

from __future__ import annotations

import json
import math
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
from apportion.tasks.cutting import cut_thinking
from apportion.tasks.goals import DataSpec, TargetsSpec
from apportion.tasks.targets import Targets, held_out
from apportion.tasks.validation import Picked, batched, by_length
from apportion.thinking.spec import ThinkingSpec
from apportion.training.mixture_runner import MixtureRunner
from apportion.training.recorder import Recorder
from apportion.training.sampler import TaskSampler
from apportion.training.stream import Stream
from apportion.training.trainer import BudgetTrainer
from apportion.training.weights_runner import WeightsRunner


@dataclass(frozen=True)
class Data:
    """What the tasks look like to the model.

    ``tasks``: the T that may be trained on. ``held_out``: the two halves of the validation splits of these, and after them
    of the targets that nothing is trained on from. ``targets``: what the model should be good at, of ``held_out``; all,
    unless the recipe says otherwise. ``named``: whether it does. ``pool``: supervised tokens of all train splits before a
    selection, which a budget's percent is of. ``judged``: the tasks that there were before it, which runs are compared by.
    """

    tokenizer: PreTrainedTokenizerBase
    tasks: EncodedCollection
    held_out: Targets
    targets: Targets
    findings: tuple[str, ...]
    pool: int
    judged: tuple[str, ...]
    named: bool = False

    @property
    def importance(self) -> dict[str, float]:
        """How much each target counts, by name, where the recipe names targets; else empty."""
        return dict(zip(self.targets.names, self.targets.importance.tolist(), strict=True)) if self.named else {}

    @property
    def sizes(self) -> TaskSizes:
        """Examples and supervised tokens of each train split, and what each task counts as a target."""
        wanted = self.importance or dict.fromkeys(self.tasks.names, 1.0)
        return TaskSizes(
            self.tasks.names,
            torch.tensor([len(task.train) for task in self.tasks.tasks], dtype=torch.float64),
            torch.tensor([int(task.train.supervised.sum()) for task in self.tasks.tasks], dtype=torch.float64),
            torch.tensor([wanted.get(name, 0.0) for name in self.tasks.names], dtype=torch.float64),
        )

    @property
    def pad_id(self) -> int:
        """The padding token."""
        return int(self.tokenizer.pad_token_id)

    def kept(self, rows: Sequence[np.ndarray]) -> Data:
        """Return the data with those train examples alone, ascending ``rows`` a task; what is held out stays.

        A task that keeps no example is trained on no more, and is reported on as before.
        """
        tasks = self.tasks.kept(rows)
        held = self.held_out.behind(tasks.names)
        targets = held.named(self.importance, tasks.names) if self.named else held
        return replace(self, tasks=tasks, held_out=held, targets=targets)


def load_data(recipe: Recipe) -> Data:
    """Read, split and encode the recipe's tasks, from the cache where it can.

    Raises:
        ApportionError: Anything wrong with the data or the tokenizer, or tags that it cannot write.
    """
    # Arms and seeds of a comparison share their data: loaded once a process, and again when its bytes change.
    spec = DataSpec(recipe.tasks, recipe.targets)
    blocks = (None if block is None else block.model_dump_json() for block in (recipe.model, spec.tasks, spec.targets))
    tokenizer, encoded = _encoded(*blocks, spec.fingerprint())
    if recipe.thinking is not None:
        encoded = _thinking(tokenizer, encoded, recipe.thinking, recipe.seed)
    data = _split(tokenizer, recipe.model_kind().encode(encoded))
    if recipe.targets is None:
        return data
    importance = recipe.targets.weights(recipe.targets.tasks or encoded.targets)
    return replace(data, targets=data.held_out.named(importance, data.tasks.names), named=True)


@lru_cache(maxsize=2)
def _encoded(
    model: str, tasks: str, targets: str | None, fingerprint: str
) -> tuple[PreTrainedTokenizerBase, EncodedCollection]:
    wanted = None if targets is None else validate(TargetsSpec, json.loads(targets), "targets")
    spec = DataSpec(validate(TasksSpec, json.loads(tasks), "tasks"), wanted)
    tokenizer = load_tokenizer(validate(ModelSpec, json.loads(model), "model"), spec)
    return tokenizer, load_encoded(spec, tokenizer, spec.tasks.max_length)


@lru_cache(maxsize=2)
def _thinking(
    tokenizer: PreTrainedTokenizerBase, encoded: EncodedCollection, thinking: ThinkingSpec, seed: int
) -> EncodedCollection:
    tags = thinking.ids(tokenizer)
    return cut_thinking(encoded, tags.open, tags.close, thinking.cuts, seed) if thinking.cuts else encoded


@lru_cache(maxsize=2)
def _split(tokenizer: PreTrainedTokenizerBase, encoded: EncodedCollection) -> Data:
    halves, exceptions = held_out(encoded)
    trained = [task for task in encoded.tasks if len(task.train)]
    tasks = EncodedCollection(trained, encoded.findings, encoded.fingerprint, encoded.targets)
    findings = (*encoded.findings, *exceptions)
    return Data(tokenizer, tasks, halves, halves, findings, encoded.supervised_total, tasks.names)


def read_budget(recipe: Recipe, data: Data, method: Mixture) -> Budget:
    """Read the budget and refuse one that the mixture's ``max_epochs`` does not allow.

    Raises:
        ApportionError: No budget, or more than there is to train on.
    """
    budget = Budget.parse(recipe.budget, data.pool)
    if budget.unit != "flops":
        check_epochs(recipe, data, method, budget, [getattr(task.train, budget.unit) for task in data.tasks.tasks])
    return budget


def check_epochs(
    recipe: Recipe, data: Data, method: Mixture, budget: Budget, worth: Sequence[np.ndarray], beside: float = 0.0
) -> None:
    """Refuse a budget that the caps on epochs, the mixture's and the targets', do not let training spend.

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
        caps = [] if method.max_epochs is None else [f"'mixture.max_epochs' = {method.max_epochs:g}"]
        if recipe.targets is not None and recipe.targets.train < (method.max_epochs or math.inf):
            drawn = {name for name, share in zip(data.tasks.names, start, strict=True) if share > 0}
            caps += [f"'targets.train' = {recipe.targets.train:g}"] if drawn & set(data.tasks.targets) else []
        cap = " with ".join(caps)
        raise ApportionError(
            f"The budget of {budget} is more than {cap} allows ({allowed}): lower the budget or raise the cap."
        )


def most_epochs(recipe: Recipe, data: Data, method: Mixture, name: str) -> float:
    """Return how often a task may be seen: as the mixture says, and a target with data of its own as the targets say."""
    most = math.inf if method.max_epochs is None else method.max_epochs
    if recipe.targets is not None and name in data.tasks.targets:
        return min(most, recipe.targets.train)
    return most


def make_sampler(recipe: Recipe, data: Data, method: Mixture) -> TaskSampler:
    """Return the seeded draws of this recipe."""
    return TaskSampler(
        [len(task.train) for task in data.tasks.tasks],
        [task.train.supervised for task in data.tasks.tasks],
        seed=recipe.seed,
        unit=method.unit,
        draws=method.draws,
        max_epochs=[most_epochs(recipe, data, method, name) for name in data.tasks.names],
    )


def make_model(recipe: Recipe, data: Data, *, meta: bool = False) -> torch.nn.Module:
    """Build or load the recipe's model; on the meta device only its shapes."""
    return recipe.model_kind().build(recipe, data.tasks, data.tokenizer, meta=meta)


def reported(recipe: Recipe, data: Data) -> list[Picked]:
    """Return the examples that every method's reported losses are measured on, in the order they are measured in."""
    own, counts = set(data.tasks.targets), recipe.validation
    halves = data.held_out.report if counts.half == "report" else data.held_out.steer
    return by_length(
        [
            item
            for name, items in zip(data.held_out.names, halves, strict=True)
            for item in items[: counts.examples_per_target if name in own else counts.examples_per_task]
        ]
    )


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
    def p(self) -> torch.Tensor:
        """The mixture as it is drawn now, (T,): what reached its epochs has no share, unless nothing else is left."""
        p = self.mixture.p
        left = torch.from_numpy(self.stream.sampler.available(p.numpy()))
        return p if torch.equal(left, p) or not left.any() else left / left.sum()

    @property
    def runners(self) -> tuple[MixtureRunner, WeightsRunner]:
        """Those that measure for a method."""
        return self.mixture, self.weights


def recomputes(args: TrainingArguments) -> bool:
    """Return whether activations are recomputed in the backward pass."""
    return bool(args.activation_checkpointing or args.gradient_checkpointing)


def assemble(recipe: Recipe, data: Data, prices: Prices, output: Path, ledger: Ledger | None = None) -> Setup:
    """Put ledger, draws and runners together for a model with these prices.

    Args:
        recipe: What to run.
        data: Its tasks.
        prices: Of its model's passes.
        output: The run folder.
        ledger: The run's, where something was spent before; else a new one.

    Raises:
        ApportionError: A budget, mixture, weighting or training argument that does not fit.
    """
    method, weighting = recipe.method(), recipe.weighting()
    args = recipe.arguments(output)
    budget = read_budget(recipe, data, method)
    ledger = ledger or Ledger(budget)
    report = report_batches(recipe, data, args)
    bench = Bench(
        tasks=data.tasks,
        targets=data.targets,
        steer=data.held_out.steer[: len(data.tasks)],
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
    if parts.ledger.budget.unit != "flops" or all(
        math.isinf(most_epochs(recipe, data, method, name)) for name in data.tasks.names
    ):
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
