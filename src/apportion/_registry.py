"""A small registry: names to classes, imported on first use, strict about unknown names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from apportion._config import Config, plain, unknown_key, validate
from apportion._declared import declared
from apportion._errors import ApportionError, nearest

M = TypeVar("M", bound=Config)


class Registry(Generic[M]):
    """Methods of one family by their ``type:`` in a recipe.

    Args:
        family: The recipe's key for this family, such as ``"mixture"``.
        base: ``"module:Class"`` that every member is derived from.
        members: Name to ``"module:Class"``; nothing is imported before it is asked for.
    """

    def __init__(self, family: str, base: str, members: Mapping[str, str]) -> None:
        self.family = family
        self._base = base
        self._members = dict(members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def check(self, spec: object, where: str | None = None) -> str:
        """Return the type that a recipe's block names; it and the block's keys are checked before anything is imported.

        Raises:
            ApportionError: No mapping with a type, neither a method nor an import path, or a key that the method lacks,
                with the nearest one.
        """
        if not isinstance(spec, Mapping) or "type" not in spec:
            raise ApportionError(
                f"'{where or self.family}' must be a mapping with a 'type', one of: {', '.join(self)}."
            )
        name = str(spec["type"])
        self._check_name(name)
        known = declared(self._members[name]) if name in self._members else frozenset()
        for key in spec:
            if known and key not in known | {"type"}:
                raise ApportionError(unknown_key(f"{where or self.family}.{key}", sorted(known)))
        return name

    def _check_name(self, name: str) -> None:
        if name not in self._members and ":" not in name:
            raise ApportionError(f"Unknown {self.family} '{name}'{nearest(name, self._members)}.")

    def get(self, name: str) -> type[M]:
        """Return the class called ``name``, or the one that it is the import path of: ``module:Class``.

        Raises:
            ApportionError: No such method, with the nearest one; a module that does not import; or a class of no such
                method.
        """
        self._check_name(name)
        if name in self._members:
            return cast("type[M]", _imported(self._members[name]))
        try:
            cls = _imported(name)
        except Exception as error:  # whatever a user's own module raises
            said = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
            raise ApportionError(f"'{name}' is no {self.family}: it cannot be imported ({said}).") from error
        base = self._base_class()
        if cls is base or not (isinstance(cls, type) and issubclass(cls, base)):
            why = "it is the base of them" if cls is base else f"it is not derived from {_public(self._base)}"
            raise ApportionError(f"'{name}' is no {self.family}: {why}.")
        return cast("type[M]", cls)

    def build(self, spec: object, where: str | None = None) -> M:
        """Build a method from its recipe block, ``{"type": name, ...settings}``.

        Raises:
            ApportionError: Unknown name, unknown key or a value out of range.
        """
        where = where or self.family
        if isinstance(spec, str):
            spec = {"type": spec}
        name = self.check(spec, where)
        settings = {key: value for key, value in cast("Mapping[str, Any]", spec).items() if key != "type"}
        return validate(self.get(name), settings, where)

    def holds(self, method: object) -> bool:
        """Return whether an object is a method of this family."""
        return isinstance(method, Config) and isinstance(method, self._base_class())

    def block(self, method: object, where: str) -> dict[str, Any]:
        """Return the recipe block of a method given as an object, a name or a block.

        Raises:
            ApportionError: None of these, or an object whose class no import finds again.
        """
        if isinstance(method, str):
            return {"type": method}
        if isinstance(method, Mapping):
            return dict(method)
        if isinstance(method, type):
            name = method.__name__
            raise ApportionError(f"'{where}' is the class {name}: give an object of it, '{name}()'.")
        if not isinstance(method, Config):
            raise ApportionError(
                f"'{where}' must be a {self.family}, its name or a mapping with a 'type', not {method!r}."
            )
        if not isinstance(method, self._base_class()):
            raise ApportionError(f"'{where}' is an object of {type(method).__name__}, which is no {self.family}.")
        return {"type": self._name(type(method)), **plain(method)}

    def _base_class(self) -> type[Config]:
        return cast("type[Config]", _imported(self._base))

    def _name(self, cls: type[Config]) -> str:
        path = f"{cls.__module__}:{cls.__qualname__}"
        for name, member in self._members.items():
            if member == path:
                return name
        try:
            found = None if cls.__module__ == "__main__" else _imported(path)
        except (ImportError, AttributeError):
            found = None
        if found is not cls:
            raise ApportionError(
                f"The class '{cls.__name__}' cannot be imported again, which a resumed run has to do: put it at the top "
                "of a module of its own and import it from there."
            )
        return path


def _public(path: str) -> str:
    """Return ``package.Class`` of ``package._module:Class``: bases are public under their package."""
    module, _, name = path.partition(":")
    return f"{module.rpartition('.')[0]}.{name}"


def _imported(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
