"""What was asked of the runs, in plain words, from their recipes and summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apportion._yaml import dump_yaml
from apportion.reports import goals, words
from apportion.reports.view import Arm, View

UNITS = {
    "supervised": "supervised tokens",
    "processed": "processed tokens",
    "padded": "tokens with padding",
    "generated": "generated tokens",
    "flops": "FLOPs",
}
"""What a budget's units are called."""


def asked(view: View) -> list[tuple[str, str]]:
    """Return (term, words) pairs: model, tasks, budget, seeds, each arm, training, machine."""
    run = view.arms[0].shown
    recipe, summary = run.recipe, run.summary or {}
    pairs = [("Model", model_text(recipe, summary)), ("Tasks", _tasks(recipe, view))]
    if view.targets:
        pairs.append(("Targets", targets_text(recipe, view.targets)))
    if run.ledger:
        budget = run.ledger["budget"]
        say = words.flops if budget["unit"] == "flops" else words.count
        pairs.append(("Budget", f"{say(budget['limit'])} {UNITS.get(budget['unit'], budget['unit'])} for each run"))
    else:
        pairs.append(("Budget", str(recipe.get("budget", words.NONE))))
    seeds = words.listing([str(seed) for seed in view.seeds], 8)
    pairs.append(
        ("Runs", f"{words.several(len(view.arms), 'arm')}, {words.several(len(view.seeds), 'seed')} ({seeds})")
    )
    common = _common_settings(view.arms)
    aims = {arm.name: toward(arm.shown.recipe) for arm in view.arms}
    if len(set(aims.values())) == 1:
        pairs += [("Steered toward", aim) for aim in set(aims.values()) if aim]
        aims = dict.fromkeys(aims, "")
    for arm in view.arms:
        said = [describe(arm, common), f"toward {aims[arm.name]}" if aims[arm.name] else ""]
        pairs.append((f"Arm {arm.name}", ", ".join(part for part in said if part)))
    pairs.append(("Training", settings(recipe.get("training") or {}) or "the defaults"))
    pairs.append(("Validation", settings(recipe.get("validation") or {}) or "the defaults"))
    if summary.get("device"):
        pairs.append(("Machine", str(summary["device"])))
    return pairs


def targets_text(recipe: dict[str, Any], importance: Mapping[str, float]) -> str:
    """Return which targets there are, with their importance where it differs, and what may be trained on of them."""
    block = recipe.get("targets") or {}
    said = goals.toward(importance)
    if block.get("tasks"):
        return f"{said}, of the tasks"
    source = block.get("source") or block.get("path")
    said += ", data of their own" + (f" from {source}" if source else "")
    often = block.get("train") or 0
    return f"{said}, " + (f"a part may be trained on, {often:g} epochs at most" if often else "never trained on")


def toward(recipe: dict[str, Any]) -> str:
    """Return what learnt mixtures were steered toward: the objective, and the targets; empty where a run says nothing."""
    block = dict(recipe.get("objective") or {})
    if not block:
        return ""
    targets = recipe.get("targets") or {}
    tasks = targets.get("tasks") or {}
    importance = {**dict.fromkeys(tasks, 1.0), **(targets.get("importance") or {})}
    importance |= tasks if isinstance(tasks, dict) else {}
    named = words.listing([f"{name} ({weight:g})" for name, weight in importance.items()], 8)
    name, said = block.pop("type", ""), settings(block)
    of = "of the targets" if targets else "of all tasks alike"
    of += f" {named}" if named else ""
    return f"{name}{f' ({said})' if said else ''} {of}"


def describe(arm: Arm, common: set[tuple[str, str]]) -> str:
    """Return what sets an arm apart: its selection, mixture and weights with the settings that not all arms share."""
    parts = []
    for family in ("selection", "mixture", "weights"):
        block = arm.shown.recipe.get(family) or {}
        block = {"type": block} if isinstance(block, str) else block
        name = str(block.get("type", ""))
        own = settings({k: v for k, v in block.items() if k != "type" and (k, repr(v)) not in common})
        if name and (family == "mixture" or name not in ("all", "uniform")):
            parts.append(f"{family} {name}" + (f" ({own})" if own else ""))
    return ", ".join(parts)


def _common_settings(arms: Sequence[Arm]) -> set[tuple[str, str]]:
    blocks = [arm.shown.recipe.get("mixture") for arm in arms]
    held = [{(k, repr(v)) for k, v in block.items()} if isinstance(block, dict) else set() for block in blocks]
    return set.intersection(*held) if len(held) > 1 else set()


def recipe_text(arm: Arm) -> str:
    """Return the shown run's recipe as YAML."""
    return dump_yaml(arm.shown.recipe)


def findings(view: View) -> list[str]:
    """Return what the runs found in the data, each sentence once."""
    found = [str(sentence) for run in view.runs for sentence in (run.summary or {}).get("findings", ())]
    return list(dict.fromkeys(found))


# The kind of model that goes without saying.
_PLAIN_KIND = "causal"


def model_text(recipe: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return which model was trained, how large it is, and what of it."""
    model = recipe.get("model")
    model = {"name": model} if isinstance(model, str) else model or {}
    config = model.get("config") or {}
    text = str(model["name"]) if model.get("name") else f"{config.get('model_type', 'a model')} from scratch"
    parameters = summary.get("parameters") or {}
    if parameters:
        text += f", {words.count(parameters['total'])} parameters"
    lora, kind = recipe.get("lora"), dict(recipe.get("kind") or {})
    name = kind.pop("type", _PLAIN_KIND)
    if not lora and name == _PLAIN_KIND:
        return f"{text}, all trained"
    trained = f", {words.count(parameters['trainable'])} trained" if parameters else ""
    if name != _PLAIN_KIND:
        return f"{text}, {name}{trained}" + (f" ({settings(kind)})" if settings(kind) else "")
    return f"{text}, LoRA{trained}" + (f" ({settings(lora)})" if isinstance(lora, dict) else "")


def _tasks(recipe: dict[str, Any], view: View) -> str:
    block = recipe.get("tasks")
    source = block.get("source") or block.get("path") if isinstance(block, dict) else block
    own = () if (recipe.get("targets") or {}).get("tasks") else view.targets
    tasks = [task for task in view.sizes if task not in own]
    sizes = [view.sizes[task] for task in tasks if view.sizes[task]]
    text = words.several(len(tasks), "task") + (f" from {source}" if source else "")
    if sizes:
        text += f", {words.count(sum(sizes))} supervised tokens in all"
        text += f", {words.count(min(sizes))} to {words.count(max(sizes))} each" if len(sizes) > 1 else ""
    return text


def settings(block: dict[str, Any]) -> str:
    """Return a block's settings as "key value, key value", blocks in it left out."""
    return ", ".join(
        f"{key} {value}" for key, value in block.items() if value is not None and not isinstance(value, dict)
    )
