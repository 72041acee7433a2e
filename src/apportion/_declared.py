"""The fields that a class declares, read from its source: importing it may load torch, which takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def declared(path: str) -> frozenset[str]:
    """Return the annotated fields of a class, those of its bases of the same package included; imports nothing.

    Args:
        path: ``"module:Class"``.

    Returns:
        Their names, none where the source is not found.
    """
    module, _, name = path.partition(":")
    return frozenset(_fields(module, name))


def _fields(module: str, name: str) -> Iterator[str]:
    tree = _source(module)
    body = [] if tree is None else tree.body
    cls = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if cls is None:
        return
    homes = {
        alias.asname or alias.name: node.module
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
    }
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            shared = "ClassVar" in ast.unparse(node.annotation)
            if not shared and not node.target.id.startswith("_"):
                yield node.target.id
    for base in cls.bases:
        if isinstance(base, ast.Name):
            home = homes.get(base.id, module)
            if home.partition(".")[0] == module.partition(".")[0]:
                yield from _fields(home, base.id)


def _source(module: str) -> ast.Module | None:
    # Only the package at the top is looked up, which imports none of it.
    top, _, rest = module.partition(".")
    spec = find_spec(top)
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place, *rest.split(".")).with_suffix(".py")
        if file.is_file():
            return ast.parse(file.read_text("utf-8"))
    return None
