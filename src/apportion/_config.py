"""Typed, frozen settings whose validation errors name the key and the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from apportion._errors import ApportionError, nearest, shown

# Pydantic's kinds of error as what the value must be.
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping of settings"),
    "string_type": "text",
    "finite_number": "a finite number",
}


# What people call things, and what to say to it; said of any block that has no key near the word itself.
_ELSEWHERE = {
    **dict.fromkeys(("lr", "learning_rate"), "did you mean 'training.learning_rate'?"),
    **dict.fromkeys(
        ("batch_size", "batch", "bs", "train_batch_size", "micro_batch_size", "per_device_train_batch_size"),
        "did you mean 'training.per_device_train_batch_size'?",
    ),
    "eval_batch_size": "did you mean 'training.per_device_eval_batch_size'?",
    **dict.fromkeys(
        ("gradient_accumulation", "grad_accum", "accumulation_steps", "gradient_accumulation_steps"),
        "did you mean 'training.gradient_accumulation_steps'?",
    ),
    **dict.fromkeys(("optimizer", "optimiser", "optim"), "did you mean 'training.optim'?"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_scheduler_type"), "did you mean 'training.lr_scheduler_type'?"),
    **dict.fromkeys(("warmup", "warmup_steps", "warmup_ratio"), "did you mean 'training.warmup_steps'?"),
    **dict.fromkeys(
        ("clip", "grad_clip", "gradient_clipping", "max_grad_norm"), "did you mean 'training.max_grad_norm'?"
    ),
    **dict.fromkeys(("wd", "weight_decay"), "did you mean 'training.weight_decay'?"),
    "bf16": "did you mean 'training.bf16'?",
    **dict.fromkeys(
        ("epochs", "epoch", "num_epochs", "n_epochs", "num_train_epochs", "steps", "num_steps", "max_steps"),
        "training ends when 'budget' is spent; 100% is one pass over the supervised tokens",
    ),
    **dict.fromkeys(("data", "dataset", "datasets", "data_path"), "did you mean 'tasks.path'?"),
    **dict.fromkeys(("max_length", "max_seq_length", "max_len", "seq_length"), "did you mean 'tasks.max_length'?"),
    **dict.fromkeys(("model_name", "model_name_or_path", "base_model"), "did you mean 'model.name'?"),
    **dict.fromkeys(("sampler", "sampling", "method", "methods"), "did you mean 'mixture'?"),
    **dict.fromkeys(("out", "output", "output_dir"), "the folder is given with --out"),
    "seeds": "a run has one 'seed'; 'apportion compare' takes --seeds",
    **dict.fromkeys(("rank", "lora_r"), "did you mean 'lora.r'?"),
    "lora_alpha": "did you mean 'lora.alpha'?",
}


class Config(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:  # noqa: ANN401
        """Build the settings by name.

        Raises:
            ApportionError: As `validate`, the class's name in place of the recipe's path.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ApportionError(_sentence(type(self), values, error, type(self).__name__)) from None

    # Pydantic's mark for an __init__ that only validates: a block inside a block is then validated without it, and an
    # error in there keeps the whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


C = TypeVar("C", bound=BaseModel)


def validate(cls: type[C], values: object, where: str) -> C:
    """Build ``cls`` from a mapping of plain values.

    Args:
        cls: The settings class.
        values: A mapping as read from YAML.
        where: The path of the mapping in the recipe, such as ``"mixture"``; it starts every error message.

    Raises:
        ApportionError: Unknown key (with the nearest known one), missing key, or a value of the wrong kind.
    """
    if not isinstance(values, Mapping):
        raise ApportionError(f"'{where}' must be a mapping of settings, not {shown(values)}.")
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ApportionError(_sentence(cls, values, error, where)) from None


def plain(config: Config) -> dict[str, Any]:
    """Return settings as plain values, those left out that are None by default: enough to build them again."""
    fields = type(config).model_fields
    dumped = config.model_dump(mode="json")
    return {key: value for key, value in dumped.items() if value is not None or fields[key].default is not None}


def _sentence(cls: type[BaseModel], values: Mapping[str, Any], error: ValidationError, where: str) -> str:
    errors = error.errors()
    # A typo in a needed key is also a key that is missing: the typo says more. Of the kinds that a value may have, the
    # one it comes closest to fails deepest.
    deepest = max(errors, key=lambda e: len(_keys(values, e)))
    first = next((e for e in errors if e["type"] == "extra_forbidden"), deepest)
    keys = _keys(values, first)
    path = ".".join([*([where] if where else []), *keys])
    if first["type"] == "extra_forbidden":
        siblings = _fields_at(cls, first["loc"][:-1])
        return unknown_key(path, siblings)
    if first["type"] == "missing":
        return f"'{path}' is missing."
    if first["type"] in _KINDS:
        kinds = list(
            dict.fromkeys(_KINDS[e["type"]] for e in errors if e["type"] in _KINDS and _keys(values, e) == keys)
        )
        if "a number" in kinds and "a whole number" in kinds:
            kinds.remove("a whole number")
        message = f"must be {' or '.join(kinds)}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = (message[:1].lower() + message[1:]).replace("input should", "must")
    # A block is not repeated to say what is wrong between its keys.
    said = f"'{path}'" if isinstance(first["input"], Mapping) else f"'{path}' is {shown(first['input'])}"
    return f"{said}: {message}."


def unknown_key(path: str, siblings: Iterable[str]) -> str:
    """Return the sentence on a key that is none of its block's, by the key's whole path and the keys that there are."""
    block, _, key = path.rpartition(".")
    return f"Unknown key '{path}'{_meant(key, block, list(siblings))}."


def _meant(key: str, block: str, siblings: list[str]) -> str:
    """Return what is said of an unknown key in a block: a key beside it that it may stand for, or one of another block."""
    said = nearest(key, siblings)
    elsewhere = _ELSEWHERE.get(key.lower())
    if elsewhere is None:
        return said
    last = elsewhere.rstrip("'?").rpartition(".")[2]
    if last in siblings:
        return f" (did you mean '{last}'?)"
    return said if "did you mean" in said and block not in ("", "training") else f" ({elsewhere})"


def _keys(values: object, error: ErrorDetails) -> list[str]:
    """Return the keys as the user wrote them, without the names of types that pydantic puts between them."""
    keys: list[str] = []
    here: Any = values
    for place, part in enumerate(error["loc"]):
        missing = error["type"] == "missing" and place == len(error["loc"]) - 1
        inside = (
            isinstance(part, int) if isinstance(here, (list, tuple)) else isinstance(here, Mapping) and part in here
        )
        if inside:
            here = here[part]
        elif not missing:
            continue
        keys.append(str(part))
    return keys


def _fields_at(cls: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    for part in loc:
        field = cls.model_fields.get(str(part))
        annotation = field.annotation if field else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        inner = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if inner is None:
            break
        cls = inner
    return list(cls.model_fields)
