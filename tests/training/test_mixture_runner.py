"""A mixture is told what it needs, when it is due and within its cost: of T tasks and V targets, and resumed exactly."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from apportion._errors import ApportionError
from apportion.budget import Cost
from apportion.budget.prices import Work
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import Mixture, TaskSizes
from apportion.mixtures.adapt import Adapt
from apportion.mixtures.loss import Loss
from apportion.mixtures.progress import Progress
from apportion.objectives import Mean, Reducible, Worst
from apportion.signals._records import Outlook
from apportion.signals.in_run_alignment import InRunAlignment
from apportion.signals.inner_step import SgdStep
from apportion.signals.look_ahead import LookAhead
from apportion.signals.losses import example_losses
from apportion.signals.validation_losses import ValidationLosses
from apportion.tasks.validation import batched, rotating
from apportion.training.mixture_runner import MixtureRunner
from apportion.training.part import Done
from apportion.training.sampler import TaskSampler
from apportion.training.stream import Stream
from tests.references import meta_gradient as reference
from tests.tiny import norms_in_double
from tests.training.units import make_bench, make_moment, random_tasks, small_model

TASKS = random_tasks()
LR = 0.05
CPU = torch.device("cpu")


class Told(Mixture):
    """Keeps what it is told last, and draws at fixed shares."""

    signal: str
    often: dict[str, int | float | bool | str | None]

    def needs(self):
        kinds = {kind.__name__: kind for kind in (ValidationLosses, LookAhead, InRunAlignment)}
        return (kinds[self.signal](**self.often),)

    def init(self, tasks):
        return {"p": torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)}

    def update(self, state, feedback):
        news = {key: getattr(feedback, key) for key in ("losses", "target_losses", "alignment")}
        return {**state, **{key: value for key, value in news.items() if value is not None}}


LOSSES = Told(signal="ValidationLosses", often={"refresh": 1, "max_cost": 1e9, "examples_per_task": 3})
AHEAD = {"refresh": 1, "examples_per_task": 4}
FORWARD = Told(signal="LookAhead", often={"estimator": "forward", **AHEAD})
UNROLLED = Told(signal="LookAhead", often={"estimator": "unrolled", **AHEAD})
READ = {"refresh": 1, "reads": None, "momentum": 0.0, "examples_per_task": 4, "precondition": True}
IN_RUN = Told(signal="InRunAlignment", often=READ)


class Training:
    """The plainest trainer there is, around one runner."""

    def __init__(self, method, objective=None, importance=None, optim="sgd", double=False, **budget):
        self.model = small_model().double() if double else small_model()
        self.bench = make_bench(TASKS, self.model, importance=importance, **budget)
        trains = [task.train for task in TASKS]
        sizes = TaskSizes(
            TASKS.names,
            torch.tensor([len(split) for split in trains]).double(),
            torch.tensor([int(split.supervised.sum()) for split in trains]).double(),
            torch.ones(3).double(),
        )
        self.ledger = self.bench.allowance.ledger
        self.runner = MixtureRunner(method, objective or Worst(tau=0.5), sizes, self.bench)
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.AdamW}
        self.optimizer = kinds[optim](self.model.parameters(), lr=LR)
        self.stream = Stream(
            TASKS,
            TaskSampler([len(split) for split in trains], [split.supervised for split in trains], seed=0),
            self.ledger,
            self.bench.allowance,
            step_flops=lambda work: self.bench.prices.train(work) + self.runner.step_price(work),
            train_flops=self.bench.prices.train,
            micro_batch=4,
            accumulation=2,
            pad_id=0,
        )
        self.number = 0
        self.drawn = None

    def begin(self):
        """Measure, draw and go backward, but do not move."""
        self.runner.before_step(make_moment(self.model, self.number, self.optimizer, LR))
        self.drawn = self.stream.next_step(self.runner.p.numpy())
        for batch in self.drawn.batches if self.drawn else ():
            if batch is not None:
                with self.runner.during(self.model, batch, LR):
                    (example_losses(self.model, batch).sum() / self.drawn.examples).backward()

    def end(self):
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.number += 1
        self.runner.after_step(Done(self.model, self.number, LR))

    def steps(self, count):
        for _ in range(count):
            self.begin()
            self.end()
        return self

    @property
    def meta(self):
        return self.ledger.spent("meta")

    def picked(self, pool, count, turn):
        """One batch of a pool's examples in that turn."""
        (batch,) = batched(rotating(pool, count, turn), 100, 0)
        return batch


PLAIN = {"fixed": {"shares": {"copy": 0.25, "reverse": 0.5, "sort": 0.25}}}


@pytest.mark.parametrize("name", ["uniform", "proportional", "temperature", "fixed"])
def test_a_mixture_that_needs_nothing_is_left_alone_and_costs_nothing(name):
    method = MIXTURES.get(name)(**PLAIN.get(name, {}))
    training = Training(method)
    runner, before = training.runner, training.runner.p
    assert runner.signals == []
    training.steps(3)
    assert torch.equal(runner.p, before) and training.meta.flops == 0
    work = Work(10, 100)
    cost = training.bench.prices
    assert runner.opening() == runner.step_price(work) == 0
    assert runner.price(Outlook(9, 72, Cost(4, 8, cost.train(work)), cost.forward(work))) == {}
    assert runner.state_dict()["signals"] == []


def measured_at(training, steps):
    """Steps before which something was measured."""
    found = []
    for step in range(steps):
        before = training.meta.flops
        training.begin()
        if training.meta.flops > before:
            found.append(step)
        training.end()
    return found


@pytest.mark.parametrize("refresh", [1, 3])
def test_losses_are_measured_when_due_once_training_has_cost_something(refresh):
    often = {"refresh": refresh, "max_cost": 1e9, "examples_per_task": 2}
    assert measured_at(Training(Told(signal="ValidationLosses", often=often)), 8) == list(range(1, 8, refresh))


@pytest.mark.parametrize(("method", "max_cost"), [(Loss, 0.03), (Loss, 0.1), (Progress, 0.5)])
def test_losses_wait_until_training_has_paid_for_them(method, max_cost):
    training = Training(method(refresh=2, max_cost=max_cost, examples_per_task=2))
    due, turn, waited = 0, 0, 0
    for step in range(24):
        before, trained = training.meta, training.ledger.spent("train").flops
        batches = batched(rotating(training.bench.steer, 2, turn), 8, 0)
        price = sum(training.bench.prices.forward(batch.work) for batch in batches)
        measures = step >= due and before.flops + price <= max_cost * trained
        waited += step >= due and not measures
        training.steps(1)
        assert training.meta.flops == pytest.approx(before.flops + measures * price)
        assert training.meta.processed == before.processed + measures * sum(batch.processed for batch in batches)
        if measures:
            due, turn = step + 2, turn + 1
    assert turn >= 2 and (waited >= 10) == (max_cost < 0.5)


def test_measured_losses_are_those_computed_one_by_one_and_another_stretch_each_time():
    training = Training(LOSSES).steps(1)
    for turn in range(3):
        batch = training.picked(training.bench.steer, 3, turn)
        expected = [float(reference.token_mean(training.model, batch, task).detach()) for task in range(3)]
        before = training.meta
        training.begin()
        state = training.runner.state
        assert state["losses"].tolist() == pytest.approx(expected, rel=1e-5)
        assert training.meta.processed - before.processed == batch.processed
        assert training.meta.supervised - before.supervised == batch.supervised
        assert torch.equal(state["target_losses"], state["losses"])  # the targets are the tasks
        training.end()


def test_losses_of_tasks_are_not_taken_for_those_of_named_targets():
    training = Training(LOSSES, Reducible(), {"sort": 1.0}).steps(2)
    assert training.runner.state["losses"].shape == (3,) and "target_losses" not in training.runner.state
    assert training.runner.objective_state["losses"].shape == (0, 1)


TWO = {"copy": 1.0, "sort": 1.0}


@pytest.mark.parametrize("method", [FORWARD, UNROLLED])
def test_looking_ahead_at_two_targets_of_three_tasks_is_the_slope_toward_these_two(method):
    with norms_in_double():
        training = Training(method, importance=TWO, double=True).steps(1)
        model, bench = training.model, training.bench
        train = training.picked(bench.look_ahead, 4, 0)
        validation = training.picked(bench.targets.steer, 4, 0)
        assert len(bench.targets.steer) == 2 and set(validation.tasks.tolist()) == {0, 1}
        p = training.runner.p
        slope = reference.finite_difference(model, train, validation, p, SgdStep(LR), 0.5, n_targets=2)
        losses = [float(reference.token_mean(model, validation, j).detach()) for j in range(2)]
        up, down = (
            reference.objective_after_step(model, train, validation, (1 + h) * p, SgdStep(LR), 0.5, 2)
            for h in (1e-5, -1e-5)
        )
        training.begin()
    state = training.runner.state
    assert state["alignment"].shape == (3,) and state["target_losses"].shape == (2,) and "losses" not in state
    assert state["target_losses"].tolist() == pytest.approx(losses, rel=1e-10)
    torch.testing.assert_close(state["alignment"], p * slope, rtol=1e-6, atol=1e-12)
    # Together they are the slope of J where all rates grow alike.
    assert float(state["alignment"].sum()) == pytest.approx(float(down - up) / 2e-5, rel=1e-6)


def test_the_backward_pass_tells_what_the_step_itself_gains_on_two_targets_of_three_tasks():
    with norms_in_double():
        training = Training(IN_RUN, importance=TWO, double=True).steps(1)
        model = training.model
        validation = training.picked(training.bench.targets.steer, 4, 0)
        u = reference.gradient(model, reference.objective(model, validation, 2, 0.5))
        losses = [float(reference.token_mean(model, validation, j).detach()) for j in range(2)]
        before = copy.deepcopy(model)
        training.begin()
        training.end()
        expected = torch.zeros(3, dtype=torch.float64)
        for batch in training.drawn.batches:
            for k, task in enumerate(batch.tasks.tolist()):
                g = reference.gradient(before, reference.one_example_loss(before, batch, k))
                expected[task] += LR * (g @ u) / training.drawn.examples
        moved = reference.flat(p.detach() for p in before.parameters()) - reference.flat(
            p.detach() for p in model.parameters()
        )
    state = training.runner.state
    assert state["alignment"].shape == (3,) and state["target_losses"].shape == (2,) and "losses" not in state
    assert state["target_losses"].tolist() == pytest.approx(losses, rel=1e-10)
    torch.testing.assert_close(state["alignment"], expected, rtol=1e-7, atol=1e-12)
    assert float(state["alignment"].sum()) == pytest.approx(float(moved @ u), rel=1e-6)


@pytest.mark.parametrize("method", [FORWARD, IN_RUN])
@pytest.mark.parametrize("optim", ["sgd", "adam"])
def test_the_alignment_with_the_mean_of_targets_is_the_mean_of_the_alignments_with_each(method, optim):
    def alignment(importance):
        with norms_in_double():
            return Training(method, Mean(), importance, optim, double=True).steps(2).runner.state["alignment"]

    one, other = alignment({"copy": 1.0}), alignment({"sort": 1.0})
    assert float((one - other).abs().max()) > 1e-6
    torch.testing.assert_close(alignment({"copy": 4.0, "sort": 1.0}), (4 * one + other) / 5, rtol=1e-7, atol=1e-14)


def test_all_tasks_named_alike_are_the_tasks_themselves():
    own, named = (
        Training(Adapt(refresh=2, reads=1), Reducible(), importance).steps(8).runner
        for importance in (None, dict.fromkeys(TASKS.names, 1.0))
    )
    assert torch.equal(own.p, named.p)
    assert {key: value.tolist() for key, value in own.state.items()} == {
        key: value.tolist() for key, value in named.state.items()
    }
    assert len(own.state["losses"])  # what is measured of targets is told of the tasks, too


def test_a_gradient_scaled_after_its_backward_is_told_as_scaled():
    plain, scaled = (Training(IN_RUN).steps(1) for _ in range(2))
    plain.begin()
    plain.end()
    scaled.begin()
    scaled.runner.rescale(torch.tensor(3.0))
    scaled.end()
    torch.testing.assert_close(scaled.runner.state["alignment"], 3 * plain.runner.state["alignment"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("method", "importance", "columns"), [(LOSSES, None, 3), (FORWARD, TWO, 2), (IN_RUN, TWO, 2), (IN_RUN, None, 3)]
)
def test_the_objectives_state_moves_by_the_target_losses_it_is_told(method, importance, columns):
    training = Training(method, Reducible(window=4), importance).steps(1)
    runner, told = training.runner, []
    for _ in range(6):
        training.begin()
        told.append(runner.state["target_losses"].tolist())
        training.end()
    state = runner.objective_state
    assert state["losses"].shape == (4, columns) and state["losses"].tolist() == told[-4:]
    assert state["progress"].tolist() == sorted(set(state["progress"].tolist()))
    assert (state["best"] < float("inf")).all()
    assert state["importance"].tolist() == [1.0] * columns


def test_losses_that_are_no_numbers_end_with_a_sentence_and_move_nothing():
    training = Training(LOSSES, Reducible()).steps(2)
    runner = training.runner
    before = copy.deepcopy(runner.objective_state)
    with torch.no_grad():
        training.model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(ApportionError, match="validation loss is not a finite number: training has diverged"):
        training.begin()
    assert torch.equal(runner.objective_state["losses"], before["losses"])


@pytest.mark.parametrize("method", [LOSSES, FORWARD, IN_RUN])
def test_what_does_not_fit_a_budget_in_flops_is_not_measured(method):
    for limit in (2e6, 1e9):
        training = Training(method, unit="flops", limit=limit).steps(1)
        while limit == 2e6 and not training.stream.finished:
            training.steps(1)
        before = training.meta.flops
        training.runner.before_step(make_moment(training.model, training.number, training.optimizer, LR))
        assert (training.meta.flops > before) == (limit == 1e9)
        assert 0 < training.ledger.total_flops <= limit


# A share of the budget that `Training` gives, two or three steps of it.
SHARE = 1e-4
PAPER = {"step": "plain", "learning_rate": 1.0, "prior": 0.0, "memory": 1.0, "floor": 0.0}
METHODS = {
    "loss": Loss(refresh=1, max_cost=0.12, examples_per_task=2),
    "progress": Progress(refresh=1, max_cost=0.5, examples_per_task=1),
    "in_run": Adapt(refresh=5, reads=2, examples_per_task=2),
    "in_run-every-step": Adapt(refresh=3, reads=None, momentum=0.5, unit="tokens"),
    "forward": Adapt(estimator="forward", refresh=2, examples_per_task=1),
    "in_run-by-budget": Adapt(refresh=SHARE, reads=2, examples_per_task=2),
    "paper": Adapt(estimator="forward", refresh=SHARE, examples_per_task=1, **PAPER),
    "paper-adam": Adapt(estimator="forward", refresh=1, examples_per_task=1, **{**PAPER, "step": "adam"}),
}


def whole_state(training):
    """What a checkpoint would hold, through its file format."""
    file = io.BytesIO()
    parts = {
        "runner": training.runner,
        "model": training.model,
        "optimizer": training.optimizer,
        "sampler": training.stream.sampler,
        "ledger": training.ledger,
    }
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", METHODS)
def test_resumed_in_the_middle_it_is_never_stopped(name):
    def fresh():
        importance = {"reverse": 3.0, "sort": 1.0} if name in ("in_run", "forward") else None
        return Training(METHODS[name], Reducible(window=3), importance, "adam")

    whole, states = fresh(), []
    for _ in range(9):
        states.append(whole_state(whole))
        whole.steps(1)
    assert whole.meta.flops > 0 and plain(whole.runner.state) != plain(fresh().runner.state)
    for cut in (2, 5):
        resumed, state = fresh(), states[cut]
        resumed.runner.load_state_dict(state["runner"], CPU)
        for part in ("model", "optimizer", "ledger"):
            getattr(resumed, part).load_state_dict(state[part])
        resumed.stream.sampler.load_state_dict(state["sampler"])
        resumed.number = cut
        ours, theirs = whole_state(resumed.steps(9 - cut)), whole_state(whole)
        assert ours["ledger"] == theirs["ledger"] and ours["sampler"] == theirs["sampler"]
        assert plain(ours["runner"]) == plain(theirs["runner"])
        assert all(torch.equal(ours["model"][key], value) for key, value in theirs["model"].items())


def plain(value):
    """Tensors as lists, at any depth."""
    if isinstance(value, dict):
        return {key: plain(held) for key, held in value.items()}
    if isinstance(value, list):
        return [plain(held) for held in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value
