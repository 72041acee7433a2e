"""Tiny models of the real architectures, from config: what every test trains."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3

ARCHITECTURES = ("llama", "qwen3", "gemma3_text")


def tiny_config(architecture: str, vocab: int = 61, hidden: int = 32, layers: int = 2, **extra):
    settings = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": architecture != "llama",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **({"sliding_window": 8, "sliding_window_pattern": 2} if architecture == "gemma3_text" else {}),
    }
    return AutoConfig.for_model(architecture, **settings | extra)


def tiny_model(architecture: str, *, lora: bool = False, dtype=torch.float32, seed: int = 0, **extra):
    """A tiny causal model with every parameter away from its special starting value (zeros and ones hide mistakes)."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture, **extra)).to(dtype)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0))
        model = model.to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model


# Learned absolute positions, and Falcon, whose blocks add in place.
OTHERS = ("gpt2", "opt", "gpt_neo")
_OTHERS = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "word_embed_proj_dim": 16,
    },
    "gpt_neo": {
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global"], 2]],
        "max_position_embeddings": 32,
    },
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def other_model(architecture: str, lora: bool = False, seed: int = 0):
    """A tiny causal model of a family with settings of its own, in evaluation mode."""
    torch.manual_seed(seed)
    settings = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **_OTHERS[architecture]}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings))
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


class _TorchInDouble:
    """The torch module as modelling code sees it; a cast to float32 leaves the dtype as it is."""

    float32 = None

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def norms_in_double():
    """Lift the models' hard-coded fp32 islands (norms) to fp64: otherwise fp64 agreement stops at fp32 rounding."""
    single = torch.Tensor.float
    patched = [modeling_llama, modeling_qwen3, modeling_gemma3]
    for module in patched:
        module.torch = _TorchInDouble()
    torch.Tensor.float = lambda self: self.double() if self.dtype == torch.float64 else single(self)
    try:
        yield
    finally:
        torch.Tensor.float = single
        for module in patched:
            module.torch = torch
