"""What `apportion plan` says of a recipe of reinforcement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apportion.cli._options import print_json, quiet_libraries


def plan_reinforcement(values: Mapping[str, Any], *, as_json: bool) -> None:
    """Price a recipe of reinforcement and print it."""
    from apportion.plans.reinforcing import parse_reinforcing

    recipe = parse_reinforcing(values)
    from apportion.plans.reinforce import plan_reinforcing

    quiet_libraries()
    planned = plan_reinforcing(recipe)
    if as_json:
        print_json(planned)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    step, limit = planned["step"], planned["budget"]["limit"]
    said = f"{limit:.3g} FLOPs in all" if planned["budget"]["unit"] == "flops" else f"{limit:,} generated tokens"
    console.print(
        f"Budget: {said}. At full length {planned['steps']:,} steps; roll-outs that end sooner leave more.\n"
        f"A step: {planned['roll_outs']} roll-outs and {planned['answers']:,} answers, at most {step['generated']:,} "
        f"tokens, {step['generate']:.3g} FLOPs to generate and {step['train']:.3g} to train.",
        markup=False,
        soft_wrap=True,
    )
    table = Table("account", "generated", "FLOPs", "share", title="Spending at the most")
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(account["flops"] for account in planned["accounts"].values())
    for name, account in planned["accounts"].items():
        table.add_row(name, f"{account['generated']:,}", f"{account['flops']:.3g}", f"{account['flops'] / total:.0%}")
    console.print(table)
