"""A small registry: names to classes, imported on first use, strict about unknown names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from apportion._config import Config, validate
from apportion._errors import ApportionError, nearest

M = TypeVar("M", bound=Config)


class Registry(Generic[M]):
    """Methods of one family by their ``type:`` in a recipe.

    Args:
        family: The recipe's key for this family, such as ``"mixture"``.
        members: Name to ``"module:Class"``; nothing is imported before it is asked for.
    """

    def __init__(self, family: str, members: Mapping[str, str]) -> None:
        self.family = family
        self._members = dict(members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def get(self, name: str) -> type[M]:
        """Return the class called ``name``, or the one that it is the import path of: ``module:Class``.

        Raises:
            ApportionError: No such method; the message names the nearest one.
        """
        if name not in self._members and ":" not in name:
            raise ApportionError(f"Unknown {self.family} '{name}'{nearest(name, self._members)}.")
        module, _, attribute = self._members.get(name, name).partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            if name in self._members:
                raise
            raise ApportionError(f"'{name}' is no {self.family}: {error}.") from error
        if not (isinstance(cls, type) and issubclass(cls, Config)):
            raise ApportionError(f"'{name}' is no {self.family}: it is not derived from one.")
        return cast("type[M]", cls)

    def build(self, spec: object, where: str | None = None) -> M:
        """Build a method from its recipe block, ``{"type": name, ...settings}``.

        Raises:
            ApportionError: Unknown name, unknown key or a value out of range.
        """
        where = where or self.family
        if isinstance(spec, str):
            spec = {"type": spec}
        if not isinstance(spec, Mapping) or "type" not in spec:
            raise ApportionError(f"'{where}' must be a mapping with a 'type', one of: {', '.join(self)}.")
        settings = {key: value for key, value in spec.items() if key != "type"}
        return validate(self.get(str(spec["type"])), settings, where)
