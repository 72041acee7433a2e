"""`apportion plan`."""

from __future__ import annotations

from typing import Any

from apportion.cli._options import Assignments, Json, RecipeFile, print_json, quiet_libraries, recipe_values


def plan(recipe: RecipeFile, assignments: Assignments = None, as_json: Json = False) -> None:
    """Say what a run would cost, before it is paid for.

    Steps, tokens and FLOPs by account, memory, and hours on this machine; trains nothing, writes nothing.
    """
    from apportion.plans.plan import plan_recipe
    from apportion.plans.recipe import parse_recipe

    parsed = parse_recipe(recipe_values(recipe, assignments))
    quiet_libraries()
    planned = plan_recipe(parsed).as_dict()
    if as_json:
        print_json(planned)
    else:
        _print(planned)


def _print(plan: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    limit = plan["budget"]["limit"]
    unit = "FLOPs in all" if plan["budget"]["unit"] == "flops" else f"{plan['budget']['unit']} tokens"
    console.print(
        f"Budget: {limit:,.0f} {unit}. About {plan['steps']:,} steps on {plan['examples']:,} examples.\n"
        f"Model: {plan['parameters']['total']:,} parameters, {plan['parameters']['trainable']:,} trained; "
        f"{plan['memory'] / 2**30:.2f} GiB for weights, gradients and optimizer, activations on top.\n"
        f"Time: {_hours(plan['seconds'])} at the {plan['flops_per_second'] / 1e9:,.0f} GFLOP/s this machine reaches in "
        "large matmuls; small models reach a part of that."
    )
    accounts = Table("account", "supervised", "processed", "FLOPs", "share", title="Expected spending")
    total = sum(account["flops"] for account in plan["accounts"].values())
    for name, account in plan["accounts"].items():
        accounts.add_row(
            name,
            f"{account['supervised']:,.0f}",
            f"{account['processed']:,.0f}",
            f"{account['flops']:.3g}",
            f"{account['flops'] / total:.0%}",
        )
    tasks = Table("task", "share at the start", "epochs", title="Tasks")
    for name, share in plan["mixture"].items():
        tasks.add_row(escape(name), f"{share:.1%}", f"{plan['epochs'][name]:.2f}")
    for table in (accounts, tasks):
        for column in table.columns[1:]:
            column.justify = "right"
        console.print(table)


def _hours(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
