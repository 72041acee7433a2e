"""Distilling: what training adds to a hypernetwork's loss, by a teacher's logits and by LoRA teachers' adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from apportion.models.tagi import distil
from apportion.models.tagi.kind import Tagi
from apportion.models.tagi.layout import Seq2SeqBatch, joined
from apportion.models.tagi.reading import Reader, evaluating
from apportion.models.tagi.slots import Factors, Given
from apportion.tasks.batches import Batch

Bare = Callable[[nn.Module, Batch | Seq2SeqBatch], Tensor]
"""The logits (S, V) of a model that is given nothing."""


class Distiller:
    """Returns the penalty lambda_1 KL + lambda_2 L_ins of a batch.

    Args:
        base: The base model, which teaches itself where there is no other.
        spec: The kind's settings.
        reader: Whose instructions the teacher reads before each example.
        bare: How a teacher is called.
        teacher: The model that gives the logits to distil, or None.
        targets: Of each task that has a LoRA teacher, the factors of each slot, scale folded in: A (d_in, r), B (r, d_out).
    """

    def __init__(
        self,
        base: nn.Module,
        spec: Tagi,
        reader: Reader,
        bare: Bare,
        *,
        teacher: nn.Module | None,
        targets: Mapping[int, Factors] | None,
    ) -> None:
        self._base: Any = base
        self._spec, self._reader, self._bare = spec, reader, bare
        self._teacher = None if teacher is None else teacher.requires_grad_(False).eval()
        self.targets = dict(targets or {})

    @property
    def teacher(self) -> nn.Module:
        """The model that gives the logits to distil."""
        base: nn.Module = self._base
        return base if self._teacher is None else self._teacher.to(next(base.parameters()).device)

    def penalty(self, batch: Batch, tasks: list[int], given: Given, logits: Tensor) -> Tensor | None:
        """Return what is added to each example's loss, (B,), or None where neither is asked for.

        Args:
            batch: The examples.
            tasks: The distinct tasks of the batch; ``given.rows`` says which each example belongs to.
            given: What the pass was given.
            logits: What it made, (S, V).
        """
        penalty, spec = None, self._spec
        if spec.distils:
            taught = self.teacher_logits(batch)
            penalty = spec.kl * distil.kl(
                logits, taught, batch.examples, len(batch), spec.temperature, spec.standardise
            )
        if self.targets:
            l_ins = torch.stack([self.distance(task, row, given.factors) for row, task in enumerate(tasks)])
            weighed = distil.aligned(l_ins, spec.ins)[given.rows]
            penalty = weighed if penalty is None else penalty + weighed
        return penalty

    def teacher_logits(self, batch: Batch) -> Tensor:
        """Return the teacher's logits (S, V) for the same labels; it reads instruction and input as one text.

        Cost: a forward pass, without gradient, over each example with its instruction before it.
        """
        config = self._base.config
        start = getattr(config, "bos_token_id", None)
        end = int(config.eos_token_id) if config.is_encoder_decoder else None
        longer = joined(batch, self._reader.instructions, int(config.pad_token_id or 0), start, end)
        with torch.no_grad(), evaluating(self._base):
            return self.logits_of_teacher(longer)

    def logits_of_teacher(self, longer: Batch | Seq2SeqBatch) -> Tensor:
        """Return the teacher's logits (S, V) for a batch with each example's instruction before it."""
        return self._bare(self.teacher, longer)

    def distances(self, factors: Factors) -> Tensor | None:
        """Return how far the first adapter is from any LoRA teacher's, to price it; None without teachers."""
        return self.distance(next(iter(self.targets)), 0, factors) if self.targets else None

    def distance(self, task: int, row: int, factors: Factors) -> Tensor:
        """Return how far a generated adapter is from its teacher's, as a share of the teacher's own size; 0 without one."""
        if task not in self.targets:
            first = next(iter(factors.values()))[0]
            return first.new_zeros((), dtype=torch.promote_types(first.dtype, torch.float32))
        target = self.targets[task]
        compare = distil.delta_w_distance if self._spec.alignment == "delta_w" else distil.factor_distance
        apart, size = [], []
        for name, (a, b) in target.items():
            made_a, made_b = factors[name][0][row], self._spec.scale * factors[name][1][row]
            apart.append(compare(made_a, made_b, a.to(made_a.device), b.to(made_a.device)))
            size.append(compare(torch.zeros_like(a), torch.zeros_like(b), a, b).to(made_a.device))
        return torch.stack(apart).sum() / torch.stack(size).sum().clamp(min=1e-30)
