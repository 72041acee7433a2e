"""What a recipe says of the model: its blocks, checked without loading torch or transformers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from apportion._config import Config

# PEFT's word for every linear layer but the head.
ALL_LINEAR = "all-linear"


class TokenizerSpec(Config):
    """A tokenizer trained from the tasks' train splits; ``tokens`` are pieces of text that are one token each."""

    train: Literal["bpe", "character"]
    vocab_size: int = Field(4096, ge=16, le=2**20)
    # None and not empty, so that recipes without it are written as they were before there was the key.
    tokens: tuple[str, ...] | None = None

    @field_validator("tokens")
    @classmethod
    def _told_apart(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for token in value or ():
            if not token or token != token.strip():
                raise ValueError(f"a token has no white space at its ends and is not empty, unlike {token!r}")
        if len(set(value or ())) < len(value or ()):
            raise ValueError("a token is there twice")
        return value


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
            if not self.config.get("model_type"):
                raise ValueError(
                    "'config.model_type' is missing: name the architecture, such as llama, qwen3 or gemma3_text"
                )
        return self


class LoraSpec(Config):
    """The recipe's ``lora`` block; left out, all parameters are trained."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = ALL_LINEAR

    @field_validator("target_modules")
    @classmethod
    def _one_name(cls, value: str | list[str]) -> str | list[str]:
        return [value] if isinstance(value, str) and value != ALL_LINEAR else value
