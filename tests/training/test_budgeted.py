"""Any Trainer carries the parts: its own data and loss, the house's schedule, record, checkpoints and resume."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from apportion._errors import ApportionError
from apportion.budget import Budget, Ledger
from apportion.models.flops import ModelFlops
from apportion.tasks.targets import held_out as halves_of
from apportion.tasks.validation import batched
from apportion.training.budgeted import Budgeted
from apportion.training.checkpoint import load_state, newest_checkpoint
from apportion.training.part import Kept, Origin, Part, Parts
from apportion.training.recorder import Recorder
from tests.tiny import tiny_model
from tests.training.units import random_tasks

TASKS = random_tasks(sizes=(3, 3, 3))
LIMIT = 601
LR = 5e-3


def rows(count=22):
    """Token ids of one length, and how many of them are real: steps differ in what they spend."""
    rng = np.random.default_rng(5)
    return [{"ids": torch.tensor(rng.integers(3, 61, 10)), "real": int(rng.integers(2, 10))} for _ in range(count)]


class OwnTrainer(Budgeted, Trainer):
    """Ranks the next token above the one before by a margin, on rows of its own, and charges the real tokens."""

    def get_train_dataloader(self):
        return DataLoader(rows(), batch_size=3)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self.parts.before_step(self.moment())
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        tokens = int(sum(batch["real"].sum() for batch in batches))
        if tokens > self.ledger.remaining:
            self.control.should_training_stop = True
            return [], count
        padded = sum(batch["ids"].numel() for batch in batches)
        self.ledger.charge("train", supervised=tokens, processed=tokens, padded=padded, flops=10.0 * tokens)
        return batches, count

    def training_step(self, model, inputs, num_items_in_batch=None):
        with self.parts.during(model, inputs, self._get_learning_rate()):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self.recorder.add_loss(loss)
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        ids, real = inputs["ids"], inputs["real"]
        logits = model(input_ids=ids).logits[:, :-1]
        right, wrong = (logits.gather(2, of[:, :, None])[..., 0] for of in (ids[:, 1:], ids[:, :-1]))
        mask = torch.arange(ids.shape[1] - 1)[None] < real[:, None]
        return (F.relu(1 - right + wrong) * mask).sum() / mask.sum()


class Diary(Part):
    """Keeps what it was told, and breaks off after a step where it is asked to."""

    name = "diary"

    def __init__(self, ledger, stop=None):
        self.ledger, self.stop, self.told = ledger, stop, []

    def before_step(self, moment):
        self.told.append(["before", moment.step, moment.lr, self.ledger.used])

    @contextmanager
    def during(self, model, batch, lr):
        assert model.training and batch["ids"].shape[0] <= 3
        yield
        self.told.append(["during", lr])

    def after_step(self, done):
        self.told.append(["after", done.step, done.lr, self.ledger.used])
        if done.step == self.stop:
            raise KeyboardInterrupt

    def state_dict(self):
        return {"told": self.told}

    def load_state_dict(self, state, device):
        self.told = state["told"]


def make(folder, stop=None, checkpoints=True, more=(), limit=LIMIT, **arguments):
    model = tiny_model("llama", hidden=16, layers=1, attention_dropout=0.1)
    args = TrainingArguments(
        output_dir=str(folder),
        learning_rate=LR,
        per_device_train_batch_size=3,
        num_train_epochs=50,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
        **{"gradient_accumulation_steps": 2, "warmup_steps": 0.2, "save_total_limit": 2, **arguments},
    )
    trainer = OwnTrainer(model=model, args=args)
    ledger = Ledger(Budget("supervised", limit))
    records = []
    halves = halves_of(TASKS)[0].report
    recorder = Recorder(
        TASKS.names,
        batched([item for half in halves for item in half[:1]], 8, 0),
        every=0.2,
        ledger=ledger,
        prices=ModelFlops.of(model),
        affords=lambda flops: True,
        proportions=lambda: torch.ones(3).double() / 3,
        append=records.append,
    )
    diary = Diary(ledger, stop)
    # The diary after the recorder: told before it of a step that is over, so that a break leaves that step unrecorded.
    parts = Parts([Origin("own"), Kept("ledger", ledger), recorder, diary, *more])
    trainer.carry(parts, recorder, ledger, folder / "checkpoints" if checkpoints else None)
    return trainer, records, diary


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer, records, diary = make(folder)
    trainer.train()
    trainer.recorder.finish(trainer.model)
    trainer.save_model(str(folder / "model"))
    return folder, trainer, records, diary


def test_parts_are_told_before_and_after_each_step_and_around_each_micro_batch(whole):
    _, trainer, _, diary = whole
    steps = trainer.state.global_step
    assert steps > 10 and 2 * steps > 3 * 8  # more than three epochs of eight batches
    words = [told[0] for told in diary.told]
    assert words == [*["before", "during", "during", "after"] * steps, "before"]
    assert [told[1] for told in diary.told if told[0] == "before"] == list(range(steps + 1))
    assert [told[1] for told in diary.told if told[0] == "after"] == list(range(1, steps + 1))


def test_the_schedule_follows_the_ledger(whole):
    """Each step goes at the rate of what was spent before it was drawn: warm-up over a fifth, then down to zero."""
    _, trainer, records, diary = whole
    begun = [told for told in diary.told if told[0] == "before"]
    for _, _, lr, used in begun:
        share = used / LIMIT
        shape = share / 0.2 if share < 0.2 else (1 - share) / 0.8
        assert lr == pytest.approx(LR * shape, abs=LR * 1e-5)
    rates = [lr for _, _, lr, _ in begun]
    assert [lr for word, lr, *_ in diary.told if word == "during"][::2] == rates[:-1]
    assert [told[2] for told in diary.told if told[0] == "after"] == rates[:-1]
    assert [record["lr"] for record in records][1:-1] == rates[: len(records) - 2]
    assert max(rates) > 0.8 * LR > rates[-1] and 0.9 * LIMIT < trainer.ledger.used <= LIMIT


def test_it_trains_and_is_recorded(whole):
    folder, trainer, records, _ = whole
    assert [record["step"] for record in records[:-1]] == list(range(trainer.state.global_step + 1))
    losses = [record["loss"] for record in records[1:-1]]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert records[-1]["spent"]["train"]["supervised"] == trainer.ledger.used
    assert trainer.state.total_flos == 0  # the ledger counts
    assert not list(folder.rglob("*.bin"))


def test_a_checkpoint_follows_each_validation_and_the_newest_two_are_kept(whole):
    folder, trainer, records, _ = whole
    validated = [record["step"] for record in records[:-1] if "validation" in record]
    assert len(validated) >= 4
    kept = sorted(int(path.name[5:]) for path in (folder / "checkpoints").iterdir())
    assert kept == validated[-2:] and kept[-1] < trainer.state.global_step
    state = load_state(newest_checkpoint(folder / "checkpoints"))
    assert list(state) == ["origin", "ledger", "recorder", "diary"]
    assert state["recorder"]["step"] == kept[-1] == state["diary"]["told"][-1][1]


@pytest.mark.parametrize("stop", [5, 9])
def test_broken_off_and_resumed_it_ends_byte_for_byte_as_if_it_never_was(whole, tmp_path, stop):
    folder, trainer, records, diary = whole
    broken, before, _ = make(tmp_path, stop)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    checkpoint = newest_checkpoint(tmp_path / "checkpoints")
    known = load_state(checkpoint)["recorder"]["records"]
    resumed, after, told = make(tmp_path)
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    resumed.recorder.finish(resumed.model)
    resumed.save_model(str(tmp_path / "model"))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
        folder / "model" / "model.safetensors"
    ).read_bytes()
    assert resumed.ledger.as_dict() == trainer.ledger.as_dict()
    assert told.told == diary.told
    bare = [[json.dumps({**record, "seconds": 0}) for record in part] for part in (before[:known] + after, records)]
    assert bare[0] == bare[1] and 0 < known < len(records)


def test_a_budget_spent_to_the_last_token_ends_at_that_step_without_a_checkpoint_of_it(whole, tmp_path):
    """Such a checkpoint would be of a finished run."""
    fitting = whole[1].ledger.used
    trainer, records, diary = make(tmp_path, limit=fitting)
    trainer.train()
    assert trainer.ledger.used == fitting and trainer.finished
    assert diary.told[-1][0] == "after" and records[-1]["step"] == trainer.state.global_step
    assert "validation" in records[-1]
    assert max(int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir()) < trainer.state.global_step


def test_a_checkpoint_of_other_parts_is_refused_by_their_names(whole, tmp_path):
    class Newer(Part):
        name = "newer"

    checkpoint = newest_checkpoint(whole[0] / "checkpoints")
    trainer, records, _ = make(tmp_path, more=[Newer()])
    with pytest.raises(ApportionError, match=r"holds origin, ledger, recorder, diary, this version .*diary, newer: st"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert records == [] and trainer.ledger.used == 0


def test_without_a_folder_no_checkpoint_is_written(tmp_path):
    trainer, records, _ = make(tmp_path, checkpoints=False)
    trainer.train()
    assert sum("validation" in record for record in records) >= 4
    assert list(tmp_path.rglob("*")) == []


def test_warm_up_in_whole_steps_is_refused(tmp_path):
    trainer, records, _ = make(tmp_path, warmup_steps=5)
    with pytest.raises(ApportionError, match=r"'training\.warmup_steps' is 5, but a budget in tokens"):
        trainer.train()
    assert records == []
