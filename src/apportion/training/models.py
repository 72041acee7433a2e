"""Models and tokenizers: by name or path, or from a config and trained from the tasks; LoRA on top of either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from pydantic import Field, model_validator
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from apportion._config import Config
from apportion._errors import ApportionError, nearest
from apportion.tasks import TasksSpec, ensure_pad, load_tokenizer_trained


class TokenizerSpec(Config):
    """A tokenizer trained from the tasks' train splits."""

    train: Literal["bpe", "character"]
    vocab_size: int = Field(4096, ge=16)


class ModelSpec(Config):
    """The recipe's ``model`` block: ``name`` (a Hub name or a folder), or ``config`` to start from scratch.

    ``dtype`` is what pretrained weights are loaded in; training in mixed precision keeps them in it.
    """

    name: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: TokenizerSpec | str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> ModelSpec:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either 'name' (a Hub name or a folder) or 'config' (from scratch)")
        if self.config is not None:
            if self.tokenizer is None:
                raise ValueError("a model from 'config' needs a 'tokenizer', such as {train: bpe, vocab_size: 4096}")
            kind = self.config.get("model_type")
            if kind not in CONFIG_MAPPING:
                raise ValueError(f"'config.model_type' is {kind!r}, which transformers does not know")
        return self


class LoraSpec(Config):
    """The recipe's ``lora`` block; left out, all parameters are trained."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


def load_tokenizer(spec: ModelSpec, tasks: TasksSpec) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer, or train one from the tasks.

    Raises:
        ApportionError: It cannot be loaded, or has neither padding nor end-of-text token.
    """
    if isinstance(spec.tokenizer, TokenizerSpec):
        return load_tokenizer_trained(tasks, spec.tokenizer.train, spec.tokenizer.vocab_size)
    name = spec.tokenizer or spec.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(_place(str(name)), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ApportionError(f"The tokenizer '{name}' does not load: {_first_line(error)}") from None
    ensure_pad(tokenizer)
    return tokenizer


def model_config(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase | None) -> Any:  # noqa: ANN401
    """Return the transformers config, from scratch ones sized to the tokenizer.

    Raises:
        ApportionError: Unknown key (with the nearest), or a config that does not load.
    """
    if spec.config is None:
        try:
            return AutoConfig.from_pretrained(_place(str(spec.name)), trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ApportionError(f"The model '{spec.name}' does not load: {_first_line(error)}") from None
    settings = dict(spec.config)
    kind = settings.pop("model_type")
    known = set(CONFIG_MAPPING[kind]().to_dict()) | {"attn_implementation", "rope_theta"}
    for key in settings:
        if key not in known:
            raise ApportionError(f"Unknown key 'model.config.{key}'{nearest(key, known)}.")
    if tokenizer is not None:
        settings = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        } | settings
    try:
        return AutoConfig.for_model(kind, **settings)
    except (TypeError, ValueError) as error:
        raise ApportionError(f"'model.config' is no {kind} config: {_first_line(error)}") from None


def build_model(
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    lora: LoraSpec | None,
    seed: int,
    meta: bool = False,
) -> nn.Module:
    """Build or load the model, LoRA included.

    Args:
        spec: What to load or build.
        tokenizer: Gives a from-scratch model its vocabulary.
        lora: Adapter settings; None trains all parameters.
        seed: For the starting values of whatever is new.
        meta: Build the shapes only, on the meta device, to price a plan; loads no weights.

    Raises:
        ApportionError: The model does not load, or LoRA does not fit it.
    """
    set_seed(seed)
    extra: dict[str, Any] = {"attn_implementation": spec.attention} if spec.attention else {}
    if meta or spec.config is not None:
        config = model_config(spec, tokenizer)
        with torch.device("meta" if meta else "cpu"):
            model = _or_refuse(lambda: AutoModelForCausalLM.from_config(config, **extra), spec)
    else:
        model = _or_refuse(
            lambda: AutoModelForCausalLM.from_pretrained(
                _place(str(spec.name)),
                dtype=getattr(torch, spec.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                **extra,
            ),
            spec,
        )
    if tokenizer is not None and len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ApportionError(
            f"The tokenizer knows {len(tokenizer):,} tokens but the model only "
            f"{model.get_input_embeddings().num_embeddings:,}: they do not belong together."
        )
    if lora is None:
        return model
    try:
        return get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=lora.target_modules,
            ),
        )
    except ValueError as error:
        raise ApportionError(f"'lora.target_modules' does not fit the model: {_first_line(error)}") from None


def parameters(model: nn.Module) -> Mapping[str, int]:
    """Return the number of parameters, ``total`` and ``trainable``; tied ones count once."""
    every = list(model.parameters())
    return {
        "total": sum(p.numel() for p in every),
        "trainable": sum(p.numel() for p in every if p.requires_grad),
    }


def _or_refuse(build: Any, spec: ModelSpec) -> Any:  # noqa: ANN401
    try:
        return build()
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ApportionError(f"The model '{spec.name or 'config'}' does not load: {_first_line(error)}") from None


def _place(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else line + "."
