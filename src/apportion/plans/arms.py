"""The arms of a comparison: their names, and the recipe of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion._config import Config, plain
from apportion._errors import ApportionError, nearest
from apportion._registry import Registry
from apportion.mixtures import MIXTURES
from apportion.plans.recipe import Recipe, as_block, parse_recipe, sketch
from apportion.selections import SELECTIONS
from apportion.weights import WEIGHTS

# What an arm may be named by, a mixture before the others.
FAMILIES: dict[str, Registry[Any]] = {"mixture": MIXTURES, "selection": SELECTIONS, "weights": WEIGHTS}


def arms_of(methods: object) -> dict[str, dict[str, Any]]:
    """Return each arm's overrides of the recipe, by the arm's name.

    Args:
        methods: A list of methods, as objects, names or blocks of a mixture; or a mapping of names to them. In a list those
            that share a type are named by the settings that set them apart too, but for one given by its name alone.

    Raises:
        ApportionError: Neither of these, something that is no method, or the same method twice.
    """
    if isinstance(methods, Mapping):
        given: list[object] = list(methods.values())
    elif isinstance(methods, Sequence) and not isinstance(methods, str | bytes):
        given = list(methods)
    else:
        raise ApportionError(f"'methods' must be a list of methods, or a mapping of names to them, not {methods!r}.")
    families = [_family_of(method) for method in given]
    blocks = [FAMILIES[family].block(_bare(method), "methods") for family, method in zip(families, given, strict=True)]
    built = [FAMILIES[family].build(block, "methods") for family, block in zip(families, blocks, strict=True)]
    names = list(methods) if isinstance(methods, Mapping) else _arm_names(given, blocks, built)
    for place, method in enumerate(built):
        if method in built[:place]:
            twin = names[built.index(method)]
            said = f"'{names[place]}' and '{twin}'" if isinstance(methods, Mapping) else f"'{blocks[place]['type']}'"
            raise ApportionError(f"Two of the methods are the same: {said}. Leave one out, or change a setting of it.")
    return {
        name: {**_beside(family, block["type"]), family: block}
        for name, family, block in zip(names, families, blocks, strict=True)
    }


def _family_of(method: object) -> str:
    """Return the family of a method given as an object or a name; what is neither is taken for a mixture."""
    if isinstance(method, str):
        return "mixture" if ":" in method else method_of(method, ())[0]
    return next((family for family, registry in FAMILIES.items() if registry.holds(method)), "mixture")


def _bare(method: object) -> object:
    return method_of(method, ())[1] if isinstance(method, str) and ":" not in method else method


def _beside(family: str, name: str) -> dict[str, Any]:
    """Return what goes with a method that an arm is named by: what is selected is trained on as it is."""
    return {"mixture": {"type": "proportional"}} if family == "selection" and name != "all" else {}


def _arm_names(given: Sequence[object], blocks: Sequence[dict[str, Any]], built: Sequence[Config]) -> list[str]:
    settings = [{"type": str(block["type"]), **plain(method)} for block, method in zip(blocks, built, strict=True)]
    names = []
    for place, (method, mine) in enumerate(zip(given, settings, strict=True)):
        alike = [other for other in settings if other["type"] == mine["type"]]
        name = mine["type"].rpartition(":")[2].lower() if ":" in mine["type"] else mine["type"]
        if len(alike) > 1 and not isinstance(method, str):
            for key in dict.fromkeys(key for other in alike for key in other):
                if any(other.get(key) != mine.get(key) for other in alike):
                    name += f"-{key}-{_said(mine.get(key), alike.index(mine) + 1)}"
        names.append(name if name not in names else f"{name}-{place + 1}")
    return names


def _said(value: object, number: int) -> str:
    # A folder's name holds no mapping: such settings are counted.
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str) or value is None else str(number)


def method_of(arm: str, arms: Sequence[str]) -> tuple[str, str]:
    """Return the family and type that an arm's name stands for: ``less``, or with its family ``selection.bm25``.

    A name that a mixture has is the mixture; of one that selections and weights both have, the family must be said.

    Args:
        arm: The name.
        arms: Those of the recipe, for the error.

    Raises:
        ApportionError: No method's name, with the nearest; or one of two families.
    """
    family, _, name = arm.partition(".")
    if family in FAMILIES and name in FAMILIES[family]:
        return family, name
    found = [family for family, registry in FAMILIES.items() if arm in registry]
    if not found:
        full = [f"{family}.{name}" for family, registry in FAMILIES.items() for name in registry]
        plain_names = [name for registry in FAMILIES.values() for name in registry]
        raise ApportionError(f"Unknown method '{arm}'{nearest(arm, [*arms, *plain_names, *full])}.")
    if len(found) > 1 and found[0] != "mixture":
        said = " or ".join(f"'{family}.{arm}'" for family in found)
        raise ApportionError(f"'{arm}' is a method of {' and of '.join(found)}: say {said}.")
    return found[0], arm


def arm_values(values: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Return the recipe of one arm as plain values.

    An arm that is a selection by name trains on what it keeps as it is: its mixture is proportional.

    Raises:
        ApportionError: ``arm`` is neither an arm of the recipe nor a method.
    """
    arms = values.get("arms") or {}
    if not isinstance(arms, Mapping):
        raise ApportionError("'arms' must map each arm's name to its overrides.")
    base = {key: value for key, value in values.items() if key != "arms"}
    if arm in arms:
        return _merged(base, arms[arm] or {}, f"arms.{arm}")
    family, name = method_of(arm, list(arms))
    base |= _beside(family, name)
    block = base.get(family)
    if isinstance(block, Mapping) and block.get("type") == name:
        return base  # the recipe's own settings for this method
    return {**base, family: {"type": name}}


def arm_recipe(values: Mapping[str, Any], arm: str, seed: int) -> Recipe:
    """Return the recipe of one arm with one seed.

    Raises:
        ApportionError: Anything wrong with it.
    """
    return parse_recipe({**arm_values(values, arm), "seed": seed})


def sketch_arms(values: Mapping[str, Any], arms: Sequence[str]) -> None:
    """Check every arm as far as that goes without torch, transformers or a module of the user's own.

    Raises:
        ApportionError: Anything wrong with one of them, or a name that cannot be a folder's.
    """
    for arm in arms:
        if not isinstance(arm, str) or not arm or "/" in arm or "\0" in arm or arm.startswith("."):
            raise ApportionError(f"{arm!r} cannot be an arm's name: it becomes a folder's.")
        sketch(arm_values(values, arm))


def _merged(base: Mapping[str, Any], overrides: object, where: str) -> dict[str, Any]:
    if not isinstance(overrides, Mapping):
        raise ApportionError(f"'{where}' must be a mapping of overrides.")
    result = dict(base)
    for key, value in overrides.items():
        old = as_block(str(key), result.get(key))
        other_method = (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and value.get("type")
            not in (
                None,
                old.get("type"),
            )
        )
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not other_method:
            result[key] = _merged(old, value, f"{where}.{key}")
        else:
            result[key] = value
    return result
