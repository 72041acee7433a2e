"""TAGI: a base model and the hypernetwork that writes its adapters from a task's instruction.

Source: Liao et al. 2024 (arXiv 2406.12382); departures are listed in ``docs/tagi.md``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from apportion._errors import ApportionError
from apportion.models.output import Output
from apportion.models.tagi.distilling import Distiller
from apportion.models.tagi.fusion import Fusion, attach_fusion, attention_layers
from apportion.models.tagi.heads import HEADS
from apportion.models.tagi.kind import Tagi
from apportion.models.tagi.layout import Seq2SeqBatch, cut_rows, ended, split_rows
from apportion.models.tagi.reading import Instructed, Reader
from apportion.models.tagi.slots import Factors, Given, attach, find_slots, giving
from apportion.tasks.batches import Batch

SUPPORTED = ("t5", "llama", "qwen3")


class TagiModel(nn.Module):
    """A base model that is adapted to each example's task by what it reads in the task's instruction.

    Called with a `Batch`, whose ``tasks`` say which instruction each example has. In training mode the result carries the
    distillation losses besides.

    Args:
        base: A causal or encoder-decoder language model of a supported family.
        spec: The recipe's ``kind`` block.
        instructions: Token ids of each task's instruction, with an encoder-decoder's end token behind it.
        teacher: The model that gives the logits to distil; None is the base itself, as it is now.
        targets: Of each task that has a LoRA teacher, the factors of each slot, scale folded in: A (d_in, r), B (r, d_out).

    Raises:
        ApportionError: A base model of another family, or modules or options that it does not have.
    """

    config: Any
    takes_batches = True
    _keys_to_ignore_on_save = None  # Trainer asks when it resumes

    def __init__(
        self,
        base: nn.Module,
        spec: Tagi,
        instructions: Sequence[Tensor],
        *,
        teacher: nn.Module | None = None,
        targets: Mapping[int, Factors] | None = None,
    ) -> None:
        super().__init__()
        self.base: Any = base
        self.spec = spec
        config: Any = base.config
        self.config = config
        check_base(config, spec)
        if teacher is None and spec.distils and spec.base == "norms_and_embeddings":
            teacher = self._apart(base)
        self._pad = int(config.pad_token_id or 0)
        # What an encoder-decoder was pretrained to see behind every text that its encoder reads.
        self.end: Any = int(config.eos_token_id) if config.is_encoder_decoder else None
        self.slots = [] if spec.head == "none" else find_slots(base, spec.modules_of(config))
        width = config.hidden_size
        self.pool = nn.Linear(width, spec.code)
        self.head = HEADS[spec.head](self.slots, spec.code, spec.r, spec.hidden) if self.slots else None
        self.fusion = nn.ModuleDict()
        if spec.fusion:
            heads = config.num_attention_heads
            self.fusion.update({n: Fusion(width, heads if width % heads == 0 else 1) for n in attention_layers(base)})
            attach_fusion(base, self.fusion)
        attach(base, self.slots)
        self._freeze()
        # Not submodules: neither trained nor saved.
        self.reader = Reader(base, spec, self.pool, instructions)
        self.distiller = Distiller(base, spec, self.reader, self._bare, teacher=teacher, targets=targets)

    def _freeze(self) -> None:
        for name, parameter in self.base.named_parameters():
            chosen = self.spec.base == "norms_and_embeddings" and _is_norm_or_embedding(name)
            parameter.requires_grad_(self.spec.base == "all" or chosen)

    @staticmethod
    def _apart(base: nn.Module) -> nn.Module:
        """Return the base as it is now, to teach: what will be trained is copied, the rest of its parameters shared."""
        shared = {id(p): p for name, p in base.named_parameters() if not _is_norm_or_embedding(name)}
        return copy.deepcopy(base, shared)

    # Writing adapters

    def factors(self, pooled: Tensor) -> Factors:
        """Return the adapters, slot by slot, for pooled instructions (T, d)."""
        made: Factors = {} if self.head is None else self.head(torch.tanh(self.pool(pooled)))
        return made

    def given(self, seen: Instructed, rows: Tensor) -> Given:
        """Return what a pass over examples of these tasks is given; ``rows`` (B,) says which each belongs to."""
        keys_values = {name: fusion.keys_values(seen.states) for name, fusion in self.fusion.items()}  # type: ignore[operator]
        return Given(self.factors(seen.pooled), self.spec.scale, rows, keys_values, seen.mask)

    # Reading a batch

    def forward(self, batch: Batch) -> Output:
        """Return the logits at the batch's supervised positions, each example adapted to its task.

        Cost: each distinct task's instruction (once for all where the base is frozen), its adapter, a pass of the adapted
        base over the examples, and in training the teacher's; `TagiPrices` says how many FLOPs that is.
        """
        if not len(batch):  # a process's part of a step that has none for it, which still sums gradients
            none = torch.stack([0 * p.sum() for p in self.parameters() if p.requires_grad]).sum()
            return Output(none.expand(0, self.config.vocab_size))
        if self.spec.stage == "pretrain":
            ids, inner = cut_rows(batch, self._pad)
            if self.end is not None:
                ids = ended(*ids, self.end, self._pad)
            seen, rows = self.reader.read(*ids), torch.arange(len(batch), device=batch.tasks.device)
            return Output(self.logits(inner, self.given(seen, rows), seen))
        distinct, rows = torch.unique(batch.tasks, return_inverse=True)
        tasks: list[int] = distinct.tolist()
        seen = self.reader.of(tasks)
        given = self.given(seen, rows)
        logits = self.logits(batch, given, seen)
        if not self.training:
            return Output(logits)
        return Output(logits, self.distiller.penalty(batch, tasks, given, logits))

    def logits(self, reading: Batch | Seq2SeqBatch, given: Given | None, seen: Instructed | None = None) -> Tensor:
        """Return the logits (S, V) at the supervised positions, with what the pass is ``given``, or of the bare base."""
        return self._logits(self.base, reading, given, seen)

    def _bare(self, model: nn.Module, reading: Batch | Seq2SeqBatch) -> Tensor:
        return self._logits(model, reading, None, None)

    def _logits(
        self,
        model: Any,  # noqa: ANN401
        reading: Batch | Seq2SeqBatch,
        given: Given | None,
        seen: Instructed | None,
    ) -> Tensor:
        if isinstance(reading, Batch) and self.config.is_encoder_decoder:
            reading = split_rows(reading, self._pad, self.config.decoder_start_token_id, self.end)
        with nullcontext() if given is None else giving(given):
            if isinstance(reading, Batch):
                output = model(**reading.model_inputs)
            else:
                encoded = model.get_encoder()(input_ids=reading.input_ids, attention_mask=reading.input_mask)
                states, mask = self._remember(encoded.last_hidden_state, reading.input_mask, given, seen)
                output = model(
                    encoder_outputs=BaseModelOutput(last_hidden_state=states),
                    attention_mask=mask,
                    decoder_input_ids=reading.decoder_ids,
                    decoder_attention_mask=reading.decoder_mask,
                    use_cache=False,
                )
        every: Tensor = output.logits
        return every.flatten(0, 1)[reading.positions]

    def _remember(
        self, states: Tensor, mask: Tensor | None, given: Given | None, seen: Instructed | None
    ) -> tuple[Tensor, Tensor | None]:
        """Put the instruction's states before the input's, for the decoder."""
        if not self.spec.memory or given is None or seen is None:
            return states, mask
        rows = given.rows_of(len(states))
        joined_mask = None if mask is None else torch.cat([seen.mask[rows], mask], 1)
        return torch.cat([seen.states[rows].to(states.dtype), states], 1), joined_mask

    # Answering

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        tasks: Tensor,
        given: Given | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> Tensor:
        """Generate as ``transformers`` does, each prompt adapted to its task; beams and sampling included.

        Args:
            input_ids: (B, L) prompts.
            attention_mask: (B, L).
            tasks: (B,) the task of each.
            given: What to adapt with in place of the tasks' own instructions (for controls), which then are not read: a
                ``memory`` is left out.
            **settings: Of ``generate``.

        Cost: the tasks' adapters once, then the base model's passes; the caller charges them to `generate`.
        """
        if self.end is not None:
            input_ids, attention_mask = ended(input_ids, attention_mask, self.end, self._pad)
        with torch.no_grad():
            seen = None
            if given is None:
                distinct, rows = torch.unique(tasks, return_inverse=True)
                seen = self.reader.of(distinct.tolist())
                given = self.given(seen, rows)
            with giving(given):
                if self.spec.memory and seen is not None:
                    encoded = self.base.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
                    states, mask = self._remember(encoded.last_hidden_state, attention_mask, given, seen)
                    settings |= {"encoder_outputs": BaseModelOutput(last_hidden_state=states), "attention_mask": mask}
                else:
                    settings |= {"input_ids": input_ids, "attention_mask": attention_mask}
                made: Tensor = self.base.generate(**settings)
                return made

    # Saving

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # noqa: ANN401
        """Return what is trained: the hypernetwork, and of the base what is not frozen; tied weights once."""
        every: dict[str, Any] = super().state_dict(*args, **kwargs)
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in every.items() if name in trained}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load what `state_dict` returned; the rest of the base is not missed.

        Raises:
            RuntimeError: ``strict``, and names of what is trained are missing, or others there.
        """
        found = super().load_state_dict(state_dict, strict=False, assign=assign)
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        found.missing_keys[:] = [name for name in found.missing_keys if name in trained]
        if strict and (found.missing_keys or found.unexpected_keys):
            raise RuntimeError(f"Missing: {found.missing_keys}; unexpected: {found.unexpected_keys}.")
        return found


def _is_norm_or_embedding(name: str) -> bool:
    return "norm" in name or "embed" in name or name.startswith("shared")


def check_base(config: Any, spec: Tagi) -> None:  # noqa: ANN401
    """Refuse a base model of a family that is not supported, or without what the spec asks of it.

    Raises:
        ApportionError: As said.
    """
    kind = config.model_type
    if kind not in SUPPORTED:
        raise ApportionError(f"A hypernetwork needs a base model of the families {', '.join(SUPPORTED)}, not '{kind}'.")
    if spec.memory and not config.is_encoder_decoder:
        raise ApportionError(
            f"'kind.memory' is for encoder-decoder models: {kind} has no encoder whose states a decoder attends to."
        )
