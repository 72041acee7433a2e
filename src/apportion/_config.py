"""Typed, frozen settings whose validation errors name the key and the nearest right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from apportion._errors import ApportionError, nearest


class Config(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
        raise ApportionError(_sentence(cls, error, where)) from None


def _sentence(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in (where, *first["loc"]) if str(part))
    if first["type"] == "extra_forbidden":
        siblings = _fields_at(cls, first["loc"][:-1])
        return f"Unknown key '{path}'{nearest(str(first['loc'][-1]), siblings)}."
    if first["type"] == "missing":
        return f"'{path}' is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"'{path}' is {first['input']!r}: {message[:1].lower()}{message[1:]}."


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
