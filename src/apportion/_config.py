"""Typed, frozen settings whose validation errors name the key and the nearest right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from apportion._errors import ApportionError, nearest

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


class Config(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
        raise ApportionError(f"'{where}' must be a mapping of settings, not {values!r}.")
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ApportionError(_sentence(cls, values, error, where)) from None


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
        return f"Unknown key '{path}'{nearest(str(first['loc'][-1]), siblings)}."
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
    said = f"'{path}'" if isinstance(first["input"], Mapping) else f"'{path}' is {first['input']!r}"
    return f"{said}: {message}."


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
