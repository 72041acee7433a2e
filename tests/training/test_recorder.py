"""The history alone: recorded and validated by shares of the budget, closed once, resumed, and honest about costs."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.budget import Budget, Ledger
from apportion.budget.allowance import Allowance
from apportion.models.flops import ModelFlops
from apportion.tasks.targets import held_out as halves_of
from apportion.tasks.validation import batched
from apportion.training.part import Done
from apportion.training.recorder import Recorder
from tests.references.meta_gradient import task_mean, token_mean
from tests.training.units import make_moment, random_tasks, small_model

TASKS = random_tasks(sizes=(3, 3, 3))
REPORT = halves_of(TASKS)[0].report
MODEL = small_model()
PRICES = ModelFlops.of(MODEL)
P = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
# A prime: no step ends on a multiple of the cadence by chance, where rounding would decide.
LIMIT = 9973


class History:
    """A recorder of the reporting halves, and what it wrote; training is a charge and a loss."""

    def __init__(self, every=0.1, limit=LIMIT, unit="supervised", batches=None, reserve=0.0, **more):
        self.records, self.shown = [], []
        self.ledger = Ledger(Budget(unit, limit))
        self.recorder = Recorder(
            TASKS.names,
            batched([item for half in REPORT for item in half[:2]], 4, 0) if batches is None else batches,
            every=every,
            ledger=self.ledger,
            prices=PRICES,
            affords=Allowance(self.ledger, reserve).affords,
            proportions=lambda: P,
            append=self.records.append,
            show=lambda record, progress: self.shown.append((record["step"], progress)),
            **more,
        )

    def start(self, model=MODEL):
        self.recorder.before_step(make_moment(model, 0))

    def step(self, number, tokens, loss=1.0, model=MODEL, lr=0.5, flops=0.0):
        self.ledger.charge("train", supervised=tokens, processed=tokens, padded=tokens, flops=flops)
        self.recorder.add_loss(torch.tensor(loss))
        self.recorder.after_step(Done(model, number, lr))

    def bare(self):
        return [{key: value for key, value in record.items() if key != "seconds"} for record in self.records]

    def validated(self):
        return [record["step"] for record in self.records if "validation" in record]


def crossed(used, part):
    """Steps at which another whole ``part`` of the budget was reached since the last such step, step 0 being one."""
    due, steps = 0, []
    for step, tokens in enumerate([0, *used]):
        if tokens >= due * part:
            steps.append(step)
            due = math.floor(tokens / part) + 1
    return steps


@given(
    st.lists(st.integers(1, 150) | st.integers(1, 3000), min_size=1, max_size=60),
    st.sampled_from([0.05, 0.1, 0.25, 1.0]),
)
@example([3000, 100, 100, 700, 5000], 0.05)
@settings(max_examples=50, deadline=None)
def test_a_record_every_hundredth_and_a_validation_every_share_however_long_steps_are(sizes, every):
    history = History(every=every, batches=[])
    history.start()
    used, steps = 0, []
    for number, tokens in enumerate(sizes, start=1):
        used += tokens
        if used > LIMIT:
            break
        steps.append(used)
        history.step(number, tokens)
        assert history.recorder.validated == (history.validated()[-1:] == [number])
    recorded = crossed(steps, LIMIT / 100)
    assert [record["step"] for record in history.records] == recorded
    # A validation waits for a record, which a step that reaches a share of the budget always is.
    assert history.validated() == crossed(steps, LIMIT * every)
    assert [step for step, _ in history.shown] == recorded


def test_the_untrained_model_is_recorded_once():
    history = History()
    history.start()
    first = history.records[0]
    assert (first["step"], first["lr"]) == (0, 0.0) and "loss" not in first
    assert first["mixture"] == {"copy": 0.5, "reverse": 0.25, "sort": 0.25}
    assert first["n_eff"] == pytest.approx(math.exp(1.5 * math.log(2)))
    for number in (1, 2):
        history.start()
        history.step(number, 3)
    assert [record["step"] for record in history.records] == [0]
    assert history.recorder.step == 2


def test_validation_losses_are_those_computed_one_by_one_and_charged_as_they_are():
    history = History()
    history.start()
    batches = history.recorder._batches
    sums, counts = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        for task in batch.tasks.unique().tolist():
            here = int(sum((batch.examples == k).sum() for k in range(len(batch)) if batch.tasks[k] == task))
            sums[task] += token_mean(MODEL, batch, task).detach().double() * here
            counts[task] += here
    losses = sums / counts
    record = history.records[0]
    assert list(record["validation"].values()) == pytest.approx(losses.tolist(), rel=1e-5)
    assert record["macro"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert record["worst"] == pytest.approx(float(losses.max()), rel=1e-5)
    assert record["objective"] == pytest.approx(float(losses.exp().mean().log()), rel=1e-5)
    spent = history.ledger.spent("validation")
    assert (spent.supervised, spent.processed) == (counts.sum(), sum(int(b.attention_mask.sum()) for b in batches))
    assert spent.padded == sum(b.input_ids.numel() for b in batches)
    assert spent.flops == history.recorder.validation_flops == sum(PRICES.forward(b.work) for b in batches) > 0
    assert history.ledger.total_flops == spent.flops
    # What reports draw their uncertainty from: the sums by example.
    measured = history.recorder.measured
    assert sum(measured["nll"]) == pytest.approx(float(sums.sum()), rel=1e-5)
    assert sum(measured["supervised"]) == float(counts.sum()) and len(measured["nll"]) == 6


def test_a_recorded_loss_is_the_mean_over_the_steps_since_the_last_record():
    history = History()
    history.start()
    history.step(1, 40, loss=3.0)
    history.recorder.add_loss(torch.tensor(0.5))  # the first micro-batch of two
    history.step(2, 80, loss=1.5)
    history.step(3, 150, loss=7.0)
    assert [record.get("loss") for record in history.records] == [None, 2.5, 7.0]


def test_best_is_the_lowest_macro_and_final_the_last():
    history, worse = History(every=0.2), copy.deepcopy(MODEL)
    with torch.no_grad():
        worse.lm_head.weight.mul_(30)
    better = trained(copy.deepcopy(MODEL))
    history.start()
    for number, model in enumerate((worse, better, MODEL, worse), start=1):
        history.step(number, 2200, model=model)
    macros = {record["step"]: record["macro"] for record in history.records}
    assert macros[2] < macros[0] == macros[3] < macros[1] == macros[4]
    assert history.recorder.best == {key: history.records[2][key] for key in ("step", "macro", "worst", "objective")}
    assert history.recorder.final["step"] == 4
    assert history.recorder.final["validation"] == history.records[-1]["validation"]


def trained(model):
    batches = History().recorder._batches
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        sum(task_mean(model, batch, int(batch.tasks[0])) for batch in batches).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_the_finished_model_is_validated_once():
    history = History(every=0.5)
    history.start()
    history.step(1, 3000)
    assert history.validated() == [0]
    for _ in range(2):
        history.recorder.finish(MODEL)
    assert history.validated() == [0, 1] and len(history.records) == 3
    # The step itself was recorded already, with its loss.
    assert "loss" in history.records[1] and "loss" not in history.records[2]
    history = History(every=0.5)
    history.start()
    history.step(1, LIMIT)
    assert history.validated() == [0, 1]
    history.recorder.finish(MODEL)
    assert len(history.records) == 2


def test_the_closing_record_has_the_loss_of_steps_that_none_was_made_of():
    history = History()
    history.start()
    history.step(1, 20, loss=4.0)
    history.step(2, 30, loss=6.0)
    history.recorder.finish(MODEL)
    assert [record.get("loss") for record in history.records] == [None, 5.0]


@pytest.mark.parametrize("cut", [1, 4, 9, 19])
def test_resumed_in_the_middle_it_writes_the_same_records(cut):
    def steps(history, numbers):
        for number in numbers:
            history.step(number, 37 + 61 * (number % 9), loss=1 / number)

    whole = History(every=0.15)
    whole.start()
    steps(whole, range(1, 30))
    whole.recorder.finish(MODEL)
    before, after = History(every=0.15), History(every=0.15)
    before.start()
    steps(before, range(1, cut + 1))
    state = json.loads(json.dumps(before.recorder.state_dict()))
    after.ledger.load_state_dict(before.ledger.state_dict())
    after.recorder.load_state_dict(state, torch.device("cpu"))
    after.start()  # as a trainer does; the untrained model is not recorded again
    steps(after, range(cut + 1, 30))
    after.recorder.finish(MODEL)
    assert before.bare() + after.bare() == whole.bare()
    assert after.recorder.best == whole.recorder.best and after.recorder.final == whole.recorder.final
    assert after.recorder.measured == whole.recorder.measured
    assert after.recorder.records == len(whole.records) and after.recorder.seconds >= state["seconds"]
    assert after.ledger.as_dict() == whole.ledger.as_dict()


def test_a_training_loss_that_is_no_number_ends_with_a_sentence():
    history = History(batches=[])
    history.start()
    history.step(1, 30, loss=float("nan"))  # not recorded, so not looked at
    with pytest.raises(
        ApportionError, match=r"The training loss is no longer a number at step 2: lower 'training\.learn"
    ):
        history.step(2, 100)
    assert [record["step"] for record in history.records] == [0]


def test_a_validation_loss_that_is_no_number_ends_with_a_sentence():
    broken = copy.deepcopy(MODEL)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("inf"))
    history = History()
    history.start()
    with pytest.raises(ApportionError, match="The validation loss is no longer a number at step 1"):
        history.step(1, 2000, model=broken)
    assert history.recorder.final["step"] == 0 and len(history.records) == 1


def flops_history(times):
    """A budget of so many validations, the closing one of which is reserved."""
    price = History().recorder.validation_flops
    return History(every=0.01, unit="flops", limit=times * price, reserve=price), price


def test_what_a_budget_in_flops_has_no_room_for_is_recorded_and_not_measured():
    history, price = flops_history(10)
    history.start()
    for number in range(1, 6):
        history.step(number, 5, flops=0.9 * price)
        assert history.recorder.validated == (history.validated()[-1] == number)
    # Before the third, 2.7 + 3 of 10 are spent and one is reserved, which leaves room for two; before the fourth not.
    assert history.validated() == [0, 1, 2, 3]
    assert [record["step"] for record in history.records] == list(range(6))
    history.recorder.finish(MODEL)
    assert history.validated()[-1] == 5 and history.ledger.total_flops <= history.ledger.budget.limit


@pytest.mark.parametrize(("times", "opens"), [(3.01, True), (2.9, False)])
def test_the_untrained_model_is_not_measured_where_that_does_not_leave_room(times, opens):
    history, _ = flops_history(times)
    history.start()
    assert history.validated() == ([0] if opens else [])
    assert history.recorder.validated == opens and len(history.records) == 1


def test_what_weights_say_is_recorded_and_logs_hold_plain_numbers():
    said = iter([{}, {"weights": {"mean": 2.0, "std": 0.5, "ess": 0.9}}])
    history, logged = History(weights=lambda: next(said)), []
    history.recorder.log = logged.append
    history.start()
    history.step(1, 1500, loss=2.0, flops=9.0)
    assert history.records[1]["weights"] == {"mean": 2.0, "std": 0.5, "ess": 0.9}
    opening, numbers = logged
    assert opening["validation/sort"] == history.records[0]["validation"]["sort"] and "loss" not in opening
    assert all(type(value) in (float, int) for value in numbers.values())
    assert numbers["spent/train/supervised"] == 1500 and opening["spent/validation/flops"] > 0
    assert numbers["loss"] == 2.0 and numbers["lr"] == 0.5 and numbers["weights/ess"] == 0.9
    assert numbers["mixture/copy"] == 0.5
    assert numbers["validation/sort"] == history.records[1]["validation"]["sort"]


def test_a_validation_that_the_budget_has_no_room_for_is_due_all_the_same():
    """A checkpoint follows then, which does not wait for what can be afforded."""
    history = History(every=0.25, unit="flops", limit=1000.0)
    history.start()
    assert history.recorder.validation_flops > 1000 and (history.recorder.due, history.recorder.validated) == (
        True,
        False,
    )
    due = []
    for number in range(1, 10):
        history.step(number, 1, flops=100.0)
        due.append(history.recorder.due)
        assert not history.recorder.validated
    assert [number for number, was in enumerate(due, start=1) if was] == [3, 5, 8]
