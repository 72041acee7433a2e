"""Causal language models of transformers, trained whole or by LoRA adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from apportion.models._kind import Asked, ModelKind

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from apportion.tasks import EncodedCollection

BASE = "base"


class Causal(ModelKind):
    """A decoder-only language model: what a recipe trains that names no other kind."""

    answers: ClassVar[bool] = True

    def build(
        self,
        asked: Asked,
        tasks: EncodedCollection,
        tokenizer: PreTrainedTokenizerBase,
        *,
        meta: bool = False,
    ) -> nn.Module:
        """Build or load the model, LoRA included; arguments and errors are `ModelKind.build`'s."""
        from apportion.models.loading import build_model

        return build_model(asked.model, tokenizer, lora=asked.lora, seed=asked.seed, meta=meta)

    def save_beside(self, model: nn.Module, asked: Asked, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Save the from-scratch model that an adapter was trained on, frozen, and name it in the adapter's settings."""
        from apportion.models.loading import build_model, quietly

        if asked.lora is None or asked.model.config is None:
            return
        base: Any = build_model(asked.model, tokenizer, lora=None, seed=asked.seed)
        with quietly():
            base.save_pretrained(folder / BASE)
        tokenizer.save_pretrained(folder / BASE)
        adapted: Any = model
        adapted.peft_config["default"].base_model_name_or_path = str((folder / BASE).absolute())

    def trained(self, folder: Path) -> nn.Module:
        """Load the model, or the adapter with its base; errors are `ModelKind.trained`'s."""
        from transformers import AutoModelForCausalLM

        from apportion.models.loading import load_model, quietly

        with quietly():
            return load_model(AutoModelForCausalLM, str(folder), "model")
