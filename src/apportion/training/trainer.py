"""Hugging Face's Trainer on the house's draws: what is drawn, and how it is weighed."""

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
from apportion._ranks import world
from apportion.budget import Ledger
from apportion.tasks.batches import Batch
from apportion.training.budgeted import Budgeted
from apportion.training.mixture_runner import MixtureRunner
from apportion.training.part import Kept, Origin, Parts
from apportion.training.recorder import Recorder
from apportion.training.stream import StepBatches, Stream
from apportion.training.weights_runner import WeightsRunner


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


class BudgetTrainer(Budgeted, Trainer):
    """Trains on the stream's examples until it is finished.

    Overrides Trainer, beside what `Budgeted` does, at the outputs' precision, the loader and step (`get_batch_samples`,
    `training_step`) and the loss; everything else is Trainer's own.

    Args:
        model: A model that `models.output.read` can call.
        args: Hugging Face's arguments.
        tokenizer: Saved beside the model.
        stream: Draws and charges the batches.
        mixture: Measures for the mixture and moves it.
        weights: Measures for the weights and weighs the losses.
        recorder: Validates and writes the history.
        ledger: What was spent.
        checkpoints: The folder of checkpoints, or None to write none.
    """

    recorder: Recorder

    def __init__(  # noqa: PLR0913 - the joint where everything meets Trainer
        self,
        model: PreTrainedModel | nn.Module,
        args: TrainingArguments,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stream: Stream,
        mixture: MixtureRunner,
        weights: WeightsRunner,
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
        self.stream, self.mixture, self.weights = stream, mixture, weights
        # In this order: the untrained model is recorded before anything is measured, and a budget in FLOPs is checked to
        # reach for the anchors, whatever the mixture then measures. After a step it is the other way round.
        kept = (Origin(stream.fingerprint), Kept("ledger", ledger), Kept("sampler", stream.sampler))
        self.carry(Parts([*kept, recorder, weights, mixture]), recorder, ledger, checkpoints)
        # The loss below is already divided by the examples of the whole optimizer step.
        self.loss_is_scaled_for_ga = True

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be drawn."""
        return self.stream.finished

    def get_train_dataloader(self) -> _Steps:
        """Return a stand-in without batches; see `get_batch_samples`."""
        return _Steps()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch | None], int]:
        """Draw and charge one optimizer step; an empty list ends training."""
        self.parts.before_step(self.moment())
        drawn: StepBatches | None = self.stream.next_step(self.mixture.p.numpy())
        if drawn is None:
            self.control.should_training_stop = True
            return [], 0
        return self.weights.given(self.model, drawn, self.state.global_step), drawn.examples

    def training_step(
        self, model: nn.Module, inputs: Batch | None, num_items_in_batch: int | Tensor | None = None
    ) -> Tensor:
        """Run one micro-batch's forward and backward; an empty one (end of the budget) does nothing."""
        if inputs is None:
            return torch.zeros((), device=self.args.device)
        with self.parts.during(self.model, inputs, self._get_learning_rate()):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self.recorder.add_loss(self.weights.plain_loss(loss / world()))
        assert num_items_in_batch is not None
        factor = self.weights.rescale(self.model, num_items_in_batch)
        if factor is not None:
            self.mixture.rescale(factor)
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
        return world() * self.weights.loss(model, inputs, num_items_in_batch)
