"""A mixture, a selection, a weighting, an objective, a signal and a kind of model that the library knows nothing of."""

from __future__ import annotations

import torch
from pydantic import Field

from apportion.budget import Cost
from apportion.mixtures import Mixture
from apportion.models import ModelKind, build_model
from apportion.objectives import Objective
from apportion.selections import Limited
from apportion.signals import Feedback, PoolTerms, StepLosses, TaskSignal, cost_of, task_losses
from apportion.tasks import batched, rotating
from apportion.weights import Weighting


class Forgetting(TaskSignal):
    """Tells how far each task's loss stands above the lowest it ever had, every ``every`` steps."""

    reads = "losses"

    def __init__(self, every):
        self.every = every
        self.turn = 0
        self.best = None

    def stretch(self, turn):
        return batched(rotating(self.bench.steer, 2, turn), self.bench.batch_size, self.bench.pad_id)

    def before_step(self, moment, asking):
        if moment.step % self.every:
            return None
        batches = self.stretch(self.turn)
        price = cost_of(batches, self.bench.prices.forward).flops
        if not self.bench.allowance.affords(price):
            return None
        self.turn += 1
        losses = task_losses(moment.model, batches, len(self.bench.steer), next(moment.model.parameters()).device)
        self.charge(batches, price)
        self.best = losses if self.best is None else torch.minimum(self.best, losses)
        return Feedback(self.bench.allowance.ledger.progress, losses=losses - self.best)

    def price(self, outlook):
        times = -(-outlook.steps // self.every)
        return sum((cost_of(self.stretch(turn), self.bench.prices.forward) for turn in range(times)), Cost())

    def state_dict(self):
        return {"turn": self.turn, "best": self.best}

    def load_state_dict(self, state, device):
        self.turn, self.best = state["turn"], state["best"]


class Shortest(Limited):
    """Keeps the shortest examples."""

    plain = False

    def needs(self):
        return (PoolTerms(),)

    def score(self, shown):
        return -torch.tensor([[float(len(ids))] for ids in shown.texts])


class Rescue(Mixture):
    """Draws what is being forgotten."""

    plain = False
    every: int = Field(10, ge=1)

    def needs(self):
        return (Forgetting(self.every),)

    def init(self, tasks):
        count = len(tasks.names)
        return {"p": torch.full((count,), 1 / count, dtype=torch.float64)}

    def update(self, state, feedback):
        return {"p": torch.softmax(4 * feedback.losses.double().cpu(), 0)}


class LowerHalf(Weighting):
    """Counts the examples of a step whose loss is at most the median, twice."""

    plain = False

    def needs(self):
        return (StepLosses(warmup=0),)

    def weigh(self, seen):
        return 2.0 * (seen.losses <= seen.losses.median())


class Squares(Objective):
    """J = sum_j w_j v_j^2."""

    def value(self, state, losses):
        return (state["importance"].to(losses) * losses**2).sum()


class StillEmbeddings(ModelKind):
    """A causal language model whose embeddings stay as they are."""

    gives = frozenset({"losses", "gradients", "states", "texts"})

    def build(self, asked, tasks, tokenizer, *, meta=False):
        model = build_model(asked.model, tokenizer, lora=asked.lora, seed=asked.seed, meta=meta)
        model.get_input_embeddings().requires_grad_(False)
        return model
