"""Models and tokenizers: by name or path, or from a config and trained from the tasks; LoRA on top of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from apportion._errors import ApportionError, nearest
from apportion.models.sizes import check_heads, check_parameters, check_sizes
from apportion.models.specs import ALL_LINEAR, LoraSpec, ModelSpec, TokenizerSpec
from apportion.tasks import ensure_pad, load_tokenizer_trained
from apportion.tasks.files import expand
from apportion.tasks.goals import Loads
from apportion.tasks.network import hub

_REFUSALS = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)
# What transformers' constructors raise of configs that they do not check themselves.
_IMPOSSIBLE = (*_REFUSALS, ArithmeticError, AssertionError, AttributeError, IndexError, MemoryError)


def load_tokenizer(spec: ModelSpec, tasks: Loads) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer, or train one from the tasks.

    Raises:
        ApportionError: It cannot be loaded, or has neither padding nor end-of-text token.
    """
    if isinstance(spec.tokenizer, TokenizerSpec):
        asked = spec.tokenizer
        return load_tokenizer_trained(tasks, asked.train, asked.vocab_size, tokens=asked.tokens or ())
    tokenizer: PreTrainedTokenizerBase = _loaded(
        lambda place: AutoTokenizer.from_pretrained(place, trust_remote_code=False),
        str(spec.tokenizer or spec.name),
        "tokenizer" if spec.tokenizer else "tokenizer of the model",
        ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model"),
    )
    ensure_pad(tokenizer)
    return tokenizer


def check_model_type(spec: ModelSpec) -> None:
    """Check the kind of a model from scratch.

    Raises:
        ApportionError: transformers knows no such kind; the message names the nearest.
    """
    kind = None if spec.config is None else str(spec.config["model_type"])
    if kind is not None and kind not in CONFIG_MAPPING:
        raise ApportionError(
            f"transformers knows no 'model.config.model_type' '{kind}'{nearest(kind, CONFIG_MAPPING)}."
        )


def model_config(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase | None) -> Any:  # noqa: ANN401
    """Return the transformers config, from scratch ones sized to the tokenizer.

    Raises:
        ApportionError: Unknown key (with the nearest), a config that does not load, or sizes that no model can have.
    """
    if spec.config is None:
        config = _loaded(
            lambda place: AutoConfig.from_pretrained(place, trust_remote_code=False),
            str(spec.name),
            "model",
            ("config.json",),
        )
        _check_config(config, f"{spec.name}/config.json: ")
        return config
    check_model_type(spec)
    settings = dict(spec.config)
    kind = settings.pop("model_type")
    known = set(CONFIG_MAPPING[kind]().to_dict()) | {"attn_implementation", "rope_theta"}
    for key in settings:
        if key not in known:
            raise ApportionError(f"Unknown key 'model.config.{key}'{nearest(key, known)}.")
    # Before transformers sees them: it makes a list entry of each layer.
    check_sizes(settings, CONFIG_MAPPING[kind].attribute_map, "model.config.")
    if tokenizer is not None:
        settings = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **({"decoder_start_token_id": tokenizer.pad_token_id} if CONFIG_MAPPING[kind]().is_encoder_decoder else {}),
        } | settings
    try:
        config = AutoConfig.for_model(kind, **settings)
    except (*_IMPOSSIBLE, StrictDataclassError) as error:
        raise ApportionError(f"'model.config' is no {kind} config: {_first_line(error.__cause__ or error)}") from None
    _check_config(config, "model.config.")
    return config


def _check_config(config: Any, where: str) -> None:  # noqa: ANN401
    text = config.get_text_config()  # of a model that sees or hears too, the part that reads
    for check in (check_sizes, check_heads):
        check(text.to_dict(), text.attribute_map, where)


def build_model(
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    lora: LoraSpec | None,
    seed: int,
    meta: bool = False,
    encoder_decoder: bool = False,
) -> nn.Module:
    """Build or load the model, LoRA included.

    Args:
        spec: What to load or build.
        tokenizer: Gives a from-scratch model its vocabulary.
        lora: Adapter settings; None trains all parameters.
        seed: For the starting values of whatever is new.
        meta: Build the shapes only, on the meta device, to price a plan; loads no weights.
        encoder_decoder: Whether the model may be one, as a hypernetwork's base.

    Raises:
        ApportionError: The model does not load, or LoRA does not fit it.
    """
    set_seed(seed)
    extra: dict[str, Any] = {"attn_implementation": spec.attention} if spec.attention else {}
    config = model_config(spec, tokenizer)
    kind: Any = AutoModelForSeq2SeqLM if encoder_decoder and config.is_encoder_decoder else AutoModelForCausalLM
    if meta or spec.config is not None:
        with torch.device("meta" if meta else "cpu"):
            try:
                model: Any = kind.from_config(config, **extra)
            except _IMPOSSIBLE as error:
                raise ApportionError(
                    f"No model follows from '{spec.name or 'model.config'}': {_first_line(error)}"
                ) from None
        check_parameters(parameters(model)["total"], spec.name or "model.config")
    else:
        model = _loaded(
            lambda place: kind.from_pretrained(
                place, dtype=getattr(torch, spec.dtype), use_safetensors=True, trust_remote_code=False, **extra
            ),
            str(spec.name),
            "model",
            ("config.json",),
        )
    if tokenizer is not None and len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ApportionError(
            f"The tokenizer knows {len(tokenizer):,} tokens but the model only "
            f"{model.get_input_embeddings().num_embeddings:,}: they do not belong together."
        )
    if lora is None:
        return model
    _check_targets(lora, model)
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


def load_model(kind: Any, place: str, what: str) -> nn.Module:  # noqa: ANN401
    """Load a model of an Auto class, or a PEFT adapter with its base, from a folder or the Hub; ``what`` names it in errors.

    Raises:
        ApportionError: It does not load.
    """
    model: nn.Module = _loaded(
        lambda name: kind.from_pretrained(name, use_safetensors=True, trust_remote_code=False),
        place,
        what,
        ("config.json", "adapter_config.json"),
    )
    return model


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block, transformers shows no bars of its own."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def parameters(model: nn.Module) -> Mapping[str, int]:
    """Return the number of parameters, ``total`` and ``trainable``; tied ones count once."""
    every = list(model.parameters())
    return {
        "total": sum(p.numel() for p in every),
        "trainable": sum(p.numel() for p in every if p.requires_grad),
    }


def _check_targets(lora: LoraSpec, model: nn.Module) -> None:
    # PEFT is content if one of the names fits; a typo in another would go unseen.
    if isinstance(lora.target_modules, str):
        return
    modules = dict(model.named_modules())
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            layers = (name.rpartition(".")[2] for name, m in modules.items() if isinstance(m, nn.Linear))
            known = dict.fromkeys((*layers, ALL_LINEAR))
            raise ApportionError(
                f"'lora.target_modules' names '{target}', no layer of the model{nearest(target, known)}."
            )


def _loaded(load: Callable[[str], Any], name: str, what: str, files: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Return ``load(name)`` from a folder, which must hold one of ``files``, the cache or the Hub."""
    folder = expand(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in files):
        inner = f" (did you mean '{folder / 'model'}'?)" if (folder / "model" / files[0]).is_file() else ""
        raise ApportionError(f"The folder '{name}' holds no {what}: it has no {' or '.join(files[:2])}{inner}.")
    if not folder.exists() and (name.startswith(("/", ".", "~", "$")) or name.count("/") > 1):
        raise ApportionError(f"There is no folder '{folder}' to load the {what} from: check the path.")
    online = True
    try:
        if folder.exists():
            return load(str(folder.absolute()))  # an adapter keeps this name of its base, wherever it is loaded from
        with hub() as online:
            return load(name)
    except _REFUSALS as error:
        if not online:
            raise ApportionError(
                f"The {what} '{name}' is not in the cache and the Hub cannot be reached: check the name and the network, "
                "or give a local folder."
            ) from None
        raise ApportionError(f"The {what} '{name}' does not load: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else line + "."
