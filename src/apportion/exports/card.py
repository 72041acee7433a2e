"""The model card of a run: what was trained, on which mixture, for how much, and how well it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from apportion._yaml import dump_yaml
from apportion.exports.shares import cell, shares_of, table
from apportion.runs.numbers import loss
from apportion.runs.schema import LedgerRecord, MixtureRecord

_UNITS = {
    "supervised": "supervised tokens",
    "processed": "processed tokens",
    "flops": "FLOPs in all, benchmarks apart",
}
_SAID = {
    "train": "training",
    "validation": "validation losses",
    "meta": "what its methods measured to steer",
    "proxy": "runs before it",
    "select": "scoring examples",
    "evaluate": "benchmarks",
    "generate": "writing adapters",
}


def card(
    recipe: Mapping[str, Any],
    summary: Mapping[str, Any],
    mixture: MixtureRecord,
    ledger: LedgerRecord,
    base: str | None,
    loaded: tuple[str, str],
) -> str:
    """Return the card as the Hub reads it: YAML between dashes, then Markdown.

    It names neither a date nor a place on this machine, so that a run that was stopped ends with the same one.

    Args:
        recipe: The run's, as plain values.
        summary: Of the finished run.
        mixture: What each task gave.
        ledger: What was spent.
        base: The Hub name of the model that training began with; None for one from a folder or from a config.
        loaded: The library that loads the model, by the Hub's name for it, and lines that do; "" where there are none.
    """
    library, loading = loaded
    method, weights, chosen = (recipe[family]["type"] for family in ("mixture", "weights", "selection"))
    front = {
        "library_name": library,
        **({} if base is None else {"base_model": base}),
        "tags": [
            "apportion",
            *dict.fromkeys(kind for kind in (method, weights, chosen) if kind not in ("uniform", "all")),
        ],
    }
    start = "from scratch" if recipe["model"].get("name") is None else "from a model in a folder"
    if base is not None:
        start = f"from `{base}`"
    adapters = " as LoRA adapters" if recipe.get("lora") else ""
    how = f"by the mixture `{method}`"
    if weights != "uniform":
        how += f", with weights `{weights}`"
    if chosen != "all":
        how += f", on what the selection `{chosen}` kept"
    tokens = ledger["accounts"]["train"]["supervised"]
    return (
        f"---\n{dump_yaml(front)}---\n\n# {len(mixture['tasks'])} tasks, {method}, seed {recipe['seed']}\n\n"
        f"Trained {start}{adapters} with Apportion {summary['versions']['apportion']}, {how}. "
        f"{tokens:,} supervised tokens were trained on.\n\n"
        f"{_section('Load it', loading)}"
        f"## Mixture\n\nWhat was drawn of each task over the whole run.\n\n{table(shares_of(mixture))}\n"
        f"## Budget\n\n{_budget(ledger)}\n\n{_accounts(ledger)}\n"
        f"## Losses at the end\n\n{_losses(summary['final'])}\n"
        f"{_section('Recipe', dump_yaml(without_places(recipe))).rstrip()}\n"
    )


def without_places(values: Any) -> Any:  # noqa: ANN401 - a recipe's plain values
    """Return a recipe's values with absolute paths cut to their last name."""
    if isinstance(values, Mapping):
        return {key: without_places(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_places(value) for value in values]
    return PurePath(values).name if isinstance(values, str) and values.startswith(("/", "~")) else values


def _budget(ledger: LedgerRecord) -> str:
    unit, limit = ledger["budget"]["unit"], ledger["budget"]["limit"]
    amount = f"{limit:.3g}" if unit == "flops" else f"{limit:,.0f}"
    return f"{amount} {_UNITS[unit]}, never overshot. What was spent, by account:"


def _accounts(ledger: LedgerRecord) -> str:
    rows = "".join(
        f"| {name} | {_SAID[name]} | {of['supervised']:,} | {of['processed']:,} | {of['flops']:.3g} |\n"
        for name, of in ledger["accounts"].items()
        if of["flops"] or of["processed"]
    )
    return (
        f"| account | for | supervised tokens | processed tokens | FLOPs |\n| --- | --- | ---: | ---: | ---: |\n{rows}"
    )


def _losses(final: Mapping[str, Any]) -> str:
    said = [_with_error("Macro loss, the mean of the tasks'", final["macro"], final.get("macro_se"))]
    if "target" in final:
        said.insert(0, _with_error("Target loss", final["target"], final.get("target_se")))
    errors, counts = final.get("se") or {}, final.get("examples") or {}
    losses = {**final["validation"], **final.get("targets", {})}
    rows = [
        (cell(name), loss(value), loss(errors.get(name)), f"{counts.get(name, 0):,}") for name, value in losses.items()
    ]
    return (
        f"{' '.join(said)} All are in nats a supervised token, on validation examples that no method steered by.\n\n"
        f"| task | loss | standard error | examples |\n| --- | ---: | ---: | ---: |\n{_lines(rows)}"
    )


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _with_error(what: str, value: float, error: float | None) -> str:
    return f"{what}: {loss(value)}{'' if error is None else f' ± {loss(error)}'}."


def _section(title: str, code: str) -> str:
    lines = "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
    return f"## {title}\n\n{lines}\n" if code else ""
