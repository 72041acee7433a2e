"""What makes a trainer of Hugging Face's, or one of TRL's, train under a budget: schedule, record, checkpoint and resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from transformers import TrainerCallback

from apportion._ranks import rank, wait
from apportion.budget import Ledger
from apportion.models.loading import quietly
from apportion.signals._records import Moment
from apportion.training.checkpoint import STATE, aside_of, load_state, write_checkpoint
from apportion.training.part import Done, Parts
from apportion.training.recorder import Log
from apportion.training.schedule import budget_schedule

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object


class Records(Protocol):
    """What writes the history, as far as a trainer knows it.

    Attributes:
        step: The step of the last record.
        due: Whether a measurement was due after the last step; a checkpoint follows then.
        log: Told the numbers of every record.
    """

    step: int
    due: bool
    log: Log | None

    def finish(self, model: nn.Module) -> None:
        """Measure and record the finished model."""
        ...


class _Closing(TrainerCallback):
    """Has the finished model validated and recorded."""

    def __init__(self, trainer: Budgeted) -> None:
        self._trainer = trainer

    def on_train_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        """Close the history."""
        self._trainer.recorder.finish(self._trainer.model)


class Budgeted(_Base):
    """Mixed into a Trainer: the schedule follows the ledger, and the parts are told of every step and kept.

    A trainer calls `carry` once it is built, and ``parts.before_step(self.moment())`` before it draws a step. The rest
    comes through Trainer's own methods, which are overridden here at five places: the schedule, recording, saving, the
    checkpoint and resuming.

    Attributes:
        parts: Told before and after each step, and kept in each checkpoint in their order.
        recorder: One of them; a checkpoint follows each of its validations.
        ledger: What was spent.
        checkpoints: The folder of checkpoints, or None to write none.
    """

    parts: Parts
    recorder: Records
    ledger: Ledger
    checkpoints: Path | None

    def carry(self, parts: Parts, recorder: Records, ledger: Ledger, checkpoints: Path | None) -> None:
        """Take the parts on."""
        self.parts, self.recorder, self.ledger, self.checkpoints = parts, recorder, ledger, checkpoints
        recorder.log = self.log
        # First of all that are told of the end: trackers close then, and are to have the last validation.
        self.callback_handler.callbacks.insert(0, _Closing(self))

    @property
    def finished(self) -> bool:
        """Whether the budget leaves no further step."""
        return self.ledger.remaining <= 0

    def moment(self) -> Moment:
        """Return where training stands, just before a step."""
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        return Moment(self.model, self.state.global_step, optimizer, self._get_learning_rate())

    def floating_point_ops(self, inputs: object) -> int:
        """Return 0: the ledger counts, by account, what Trainer would estimate."""
        return 0

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule over the share of the budget spent."""
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = budget_schedule(
                self.args, optimizer or self.optimizer, lambda: self.ledger.progress
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _maybe_log_save_evaluate(self, *args: Any, learning_rate: float | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Tell the parts of the step, and save a checkpoint where a validation was due."""
        if self.state.global_step == self.recorder.step:
            return  # Trainer calls once more at the end of its epoch.
        self.parts.after_step(Done(self.model, self.state.global_step, learning_rate or 0.0))
        if self.recorder.due and self.checkpoints is not None and not self.finished:
            self._save_checkpoint(self.model, None)
        if self.finished:
            self.control.should_training_stop = True

    def keep_last(self) -> None:
        """Write the checkpoint of the end, where all are kept."""
        if self.args.save_total_limit is None and self.checkpoints is not None:
            self._save_checkpoint(self.model, None)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as Trainer does, without its bars and without the pickle of its arguments, which nothing here reads."""
        with quietly():
            super().save_model(output_dir, _internal_call=_internal_call)
        (Path(output_dir or str(self.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write ``step-N`` atomically: Trainer's files and, beside them, the parts' state; all ranks call this."""
        assert self.checkpoints is not None
        step = self.state.global_step

        def write(folder: Path) -> None:
            wait()  # for the folder, into which every rank writes its random state
            self._save_rng_state(str(folder))
            wait()
            if rank() > 0:
                return
            self.save_model(str(folder), _internal_call=True)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self.state.save_to_json(str(folder / "trainer_state.json"))
            torch.save(self.parts.state_dict(), folder / STATE)

        if rank() == 0:
            write_checkpoint(self.checkpoints, step, write, self.args.save_total_limit)
        else:
            write(aside_of(self.checkpoints, step))
        wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Restore the parts, and load the model as Trainer does."""
        self.parts.load_state_dict(load_state(Path(resume_from_checkpoint)), self.args.device)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
