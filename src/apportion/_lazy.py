"""A package's public names, imported on first use, so that naming the package loads nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apportion._registry import Registry


def lazily(
    package: str, names: Sequence[str], home: Mapping[str, str] | str, registry: Registry[Any] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Args:
        package: Its name.
        names: Its public ones, ``__all__``.
        home: The module below the package that all of them are in, or each name's; "" for a name that is itself a module.
        registry: The package's family: a name that is a method's in lower case is its class.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        if registry is not None and name.lower() in registry:
            return registry.get(name.lower())
        module = home if isinstance(home, str) else home[name]
        if not module:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(f"{package}.{module}"), name)

    return find, lambda: sorted(names)
