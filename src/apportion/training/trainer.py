"""Hugging Face's Trainer with the budget in charge: what is drawn, how it is weighed, when it stops, what is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from apportion._errors import ApportionError
from apportion._ranks import rank, wait, world
from apportion.budget import Ledger
from apportion.models.loading import quietly
from apportion.tasks.batches import Batch
from apportion.training.checkpoint import STATE, aside_of, load_state, write_checkpoint
from apportion.training.recorder import Recorder
from apportion.training.schedule import budget_schedule
from apportion.training.steering import Steering
from apportion.training.stream import StepBatches, Stream
from apportion.training.weighing import Weighing

# Training ends when the ledger says so; this only has to be out of reach.
UNREACHABLE_STEPS = 10**9


class _Steps:
    """Stands where Trainer wants a loader; the batches themselves are drawn step by step, never ahead."""

    def __iter__(self) -> Iterator[None]:
        return iter(())


def as_computed(model: nn.Module) -> None:
    """Take off what accelerate puts around a model in mixed precision: a copy of all its outputs in fp32.

    All logits are many times as much as those at supervised positions, which the loss raises by itself.
    """
    forward: Any = getattr(model.forward, "__func__", model.forward)
    raising = getattr(forward, "__wrapped__", None)
    if isinstance(raising, ConvertOutputsToFp32):
        plain = raising.model_forward
        model.forward = MethodType(plain, model) if forward is not model.forward else plain


class BudgetTrainer(Trainer):
    """Trains until the stream is finished.

    Overrides Trainer at six places: the outputs' precision, the loader and step (`get_batch_samples`), the loss, the
    schedule, recording (with validation and checkpoints) and resuming; everything else is Trainer's own.

    Args:
        model: A causal language model, PEFT-wrapped or not.
        args: Hugging Face's arguments.
        tokenizer: Saved beside the model.
        stream: Draws and charges the batches.
        steering: Measures for the mixture and moves it.
        weighing: Measures for the weights and weighs the losses.
        recorder: Validates and writes the history.
        ledger: What was spent.
        checkpoints: The folder of checkpoints, or None to write none.
    """

    def __init__(  # noqa: PLR0913 - the joint where everything meets Trainer
        self,
        model: PreTrainedModel | nn.Module,
        args: TrainingArguments,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stream: Stream,
        steering: Steering,
        weighing: Weighing,
        recorder: Recorder,
        ledger: Ledger,
        checkpoints: Path | None,
    ) -> None:
        if args.n_gpu > 1:
            args._n_gpu = 1  # Trainer would split each batch over all GPUs it sees; a process uses one
        super().__init__(model=model, args=args, processing_class=tokenizer)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ApportionError(
                "Several processes each hold the whole model here: start them with torchrun, or with 'accelerate launch' "
                "without FSDP and DeepSpeed."
            )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.stream, self.steering, self.weighing = stream, steering, weighing
        self.recorder, self.ledger = recorder, ledger
        self.checkpoints = checkpoints
        # The loss below is already divided by the examples of the whole optimizer step.
        self.loss_is_scaled_for_ga = True

    def get_train_dataloader(self) -> _Steps:
        """Return a stand-in without batches; see `get_batch_samples`."""
        return _Steps()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch | None], int]:
        """Draw and charge one optimizer step; an empty list ends training."""
        self.recorder.start(self.model)
        # First: a budget in FLOPs is checked to reach for the anchors, whatever the mixture then measures.
        self.weighing.prepare(self.model, self.state.global_step)
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        self.steering.prepare(self.model, self.state.global_step, optimizer, self._get_learning_rate())
        drawn: StepBatches | None = self.stream.next_step(self.steering.p.numpy())
        if drawn is None:
            self.control.should_training_stop = True
            return [], 0
        return self.weighing.given(self.model, drawn, self.state.global_step), drawn.examples

    def training_step(
        self, model: nn.Module, inputs: Batch | None, num_items_in_batch: int | Tensor | None = None
    ) -> Tensor:
        """Run one micro-batch's forward and backward; an empty one (end of the budget) does nothing."""
        if inputs is None:
            return torch.zeros((), device=self.args.device)
        with self.steering.reading(self.model, inputs, self._get_learning_rate()):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self.recorder.add_loss(self.weighing.plain_loss(loss / world()))
        assert num_items_in_batch is not None
        factor = self.weighing.rescale(self.model, num_items_in_batch)
        if factor is not None:
            self.steering.rescale(factor)
        return loss

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Prepare as Trainer does, but leave the model's outputs in the precision that they were computed in."""
        prepared = super()._prepare_for_training(*args, **kwargs)
        as_computed(self.accelerator.unwrap_model(prepared[0]))
        return prepared

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """Move the batch; one without an example, which Trainer would refuse, keeps a rank in step with the others."""
        return inputs.to(self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: int | Tensor | None = None,
    ) -> Tensor:
        """Return sum of w_k l_k over the micro-batch, divided by the examples of the optimizer step: l_k in fp32.

        It is multiplied by the number of ranks, over which their gradients are averaged.
        """
        assert num_items_in_batch is not None
        return world() * self.weighing.loss(model, inputs, num_items_in_batch)

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
        """Move the mixture, record what is due, and save a checkpoint where a validation was due."""
        if self.state.global_step == self.recorder.step:
            return  # Trainer calls once more at the end of its epoch.
        self.steering.after_step()
        validated = self.recorder.after_step(self.model, self.state.global_step, learning_rate or 0.0, self)
        if validated and self.checkpoints is not None and not self.stream.finished:
            self._save_checkpoint(self.model, None)
        if self.stream.finished:
            self.control.should_training_stop = True

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as Trainer does, without its bars and without the pickle of its arguments, which nothing here reads."""
        with quietly():
            super().save_model(output_dir, _internal_call=_internal_call)
        (Path(output_dir or str(self.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write ``step-N`` atomically: Trainer's files and, beside them, Apportion's state; all ranks call this."""
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
            torch.save(self._own_state(), folder / STATE)

        if rank() == 0:
            write_checkpoint(self.checkpoints, step, write)
        else:
            write(aside_of(self.checkpoints, step))
        wait()

    def _own_state(self) -> dict[str, Any]:
        return {
            "fingerprint": self.stream.fingerprint,
            "processes": world(),
            "ledger": self.ledger.state_dict(),
            "sampler": self.stream.sampler.state_dict(),
            "steering": self.steering.state_dict(),
            "weighing": self.weighing.state_dict(),
            "recorder": self.recorder.state_dict(),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the model as Trainer does, then the ledger, sampler, mixture, weights and history position."""
        state = load_state(Path(resume_from_checkpoint))
        if state["fingerprint"] != self.stream.fingerprint:
            raise ApportionError(
                "The tasks' data or the tokenizer changed since this run began: put them back to resume it, "
                "or start in a new folder."
            )
        if state["processes"] != world():
            raise ApportionError(
                f"This run began with {state['processes']} processes, which decide the size of its steps, and not with "
                f"{world()}: start as many again, or a new folder."
            )
        self.weighing.load_state_dict(state["weighing"], self.args.device)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.ledger.load_state_dict(state["ledger"])
        self.stream.sampler.load_state_dict(state["sampler"])
        self.steering.load_state_dict(state["steering"], self.args.device)
        self.recorder.load_state_dict(state["recorder"])
