"""TRL's GRPO on the house's roll-outs: what is rolled out, and how each token of it is weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from apportion.budget import Ledger
from apportion.budget.prices import Prices, Work
from apportion.training.budgeted import Budgeted, Records
from apportion.training.part import Parts
from apportion.training.rl.tree import Row, additive, collate

Batch = dict[str, Tensor]


class _Steps:
    """Stands where Trainer wants a loader; roll-outs are made step by step, never ahead."""

    def __iter__(self) -> Iterator[None]:
        return iter(())


def _no_reward(completions: Sequence[Any], **_: Any) -> list[None]:  # noqa: ANN401
    """Stand where TRL wants a reward: ours are given before its loss is asked."""
    return [None] * len(completions)


class Reinforcer(Budgeted, GRPOTrainer):
    """Trains on the rows of `roll` until there are no more.

    Overrides GRPOTrainer, beside what `Budgeted` does, at the loader, at what becomes of a step (`get_batch_samples`,
    `_prepare_inputs`), and where the loss calls the model. The loss itself is TRL's, `dr_grpo`: summed over trained tokens,
    divided by roll-outs times the longest completion.

    Args:
        model: A transformers causal language model with full attention.
        args: TRL's arguments, ``max_completion_length`` the longest completion.
        tokenizer: Its.
        roll: Makes a step's rows, charges what that took, and returns none where the budget leaves no whole step.
        prices: Of the model's passes.
        ledger: What was spent; a step's rows are charged to `train` when they are batched.
        parts: Told of every step, the recorder among them.
        recorder: Writes the history.
        checkpoints: The folder of checkpoints, or None to write none.
    """

    def __init__(  # noqa: PLR0913 - the joint where everything meets TRL's trainer
        self,
        model: nn.Module,
        args: GRPOConfig,
        tokenizer: PreTrainedTokenizerBase,
        *,
        roll: Callable[[nn.Module, int], list[Row]],
        prices: Prices,
        ledger: Ledger,
        parts: Parts,
        recorder: Records,
        checkpoints: Path | None,
    ) -> None:
        import datasets

        # Never read: TRL asks for one, and counts its rows.
        stand_in = datasets.Dataset.from_dict({"prompt": [""] * (args.num_generations or 1)})
        owner: Any = model
        super().__init__(
            model=owner, args=args, processing_class=tokenizer, reward_funcs=_no_reward, train_dataset=stand_in
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self._roll, self._prices = roll, prices
        self._layout: Batch = {}
        self._over = False
        self.carry(parts, recorder, ledger, checkpoints)

    @property
    def finished(self) -> bool:
        """Whether the budget leaves no further step."""
        return self._over

    def get_train_dataloader(self) -> _Steps:
        """Return a stand-in without batches; see `get_batch_samples`."""
        return _Steps()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int | None]:
        """Roll out and charge one optimizer step; an empty list ends training."""
        self.parts.before_step(self.moment())
        rows = self._roll(self.accelerator.unwrap_model(self.model), self.state.global_step)
        if not rows:
            self._over = self.control.should_training_stop = True
            return [], None
        # Rows of like length share a micro-batch.
        rows = sorted(rows, key=len)
        batches = []
        for part in np.array_split(np.arange(len(rows)), self.args.gradient_accumulation_steps):
            batch = collate([rows[i] for i in part], self.processing_class.pad_token_id)
            # TRL divides by the rows of a micro-batch and by their number: here all roll-outs of a step count alike.
            batch["advantages"] *= len(part) * self.args.gradient_accumulation_steps / len(rows)
            self._charge([rows[i] for i in part], batch)
            batches.append(batch)
        return batches, None

    def _charge(self, rows: Sequence[Row], batch: Batch) -> None:
        tokens = sum(map(len, rows))
        self.ledger.charge(
            "train",
            supervised=int(sum(row.trained.sum() for row in rows)),
            processed=tokens,
            padded=batch["position_ids"].numel(),
            flops=self._prices.train(Work(tokens, sum(len(row) ** 2 for row in rows))),
        )

    def _prepare_inputs(self, generation_batch: Batch) -> Batch:
        """Move a micro-batch; TRL would roll out here."""
        return {name: tensor.to(self.args.device) for name, tensor in generation_batch.items()}

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Return TRL's loss, of rows in which several answers stand behind one thinking."""
        self._layout = {name: inputs[name] for name in ("position_ids", "seen")}
        loss: Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        **_: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return log-probability and entropy of each token behind the prompts, (rows, T), by the rows' own layout."""
        labels = input_ids.masked_fill(attention_mask == 0, -100)
        labels[:, :-logits_to_keep] = -100
        device = input_ids.device.type
        with self.accelerator.autocast():
            mixed = torch.is_autocast_enabled(device)
            dtype = torch.get_autocast_dtype(device) if mixed else next(model.parameters()).dtype
            out: Any = model(
                input_ids=input_ids,
                attention_mask=additive(self._layout["seen"], dtype),
                position_ids=self._layout["position_ids"],
                labels=labels,
                fused_lm_head=True,
                use_cache=False,
            )
        return out.log_probs[:, -logits_to_keep:], out.entropy[:, -logits_to_keep:], None
