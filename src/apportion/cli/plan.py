"""`apportion plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion._errors import ApportionError
from apportion.cli._options import (
    Assignments,
    Json,
    RecipeFile,
    listed,
    print_json,
    quiet_libraries,
    recipe_values,
    seed_numbers,
)
from apportion.cli._reinforcing import plan_reinforcement
from apportion.cli._serving import plan_inference

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def plan(
    recipe: RecipeFile,
    methods: Annotated[
        str | None, typer.Option(help="Price a comparison of these arms, by comma. [default: all arms of the recipe]")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Its seeds, by comma. [default: 0]")] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Say what a run or comparison would cost, before it is paid for.

    Steps, tokens and FLOPs by account, memory, time on this machine, and what to set otherwise. A few steps are made to see
    how long they take, of models that are small enough; nothing of it is kept. A recipe with 'prompts', 'inference' and
    'cache' is priced too: what its answers take at full length, and which limit they run into first. One with 'rl' is priced
    by steps of roll-outs at full length.
    """
    values = recipe_values(recipe, assignments)
    from apportion.plans.recipe import is_serving
    from apportion.plans.reinforcing import is_reinforcing

    if is_serving(values) or is_reinforcing(values):
        if methods is not None or seeds is not None:
            raise ApportionError("'--methods' and '--seeds' are of comparisons of training.")
        plan_other = plan_inference if is_serving(values) else plan_reinforcement
        plan_other(values, as_json=as_json)
        return
    arms = listed(methods) if methods is not None else list(values.get("arms") or {})
    if not arms and (methods is not None or seeds is not None):
        raise ApportionError("Nothing to compare: name methods with --methods, such as uniform,proportional,adapt.")
    numbers = seed_numbers(seeds if seeds is not None else "0")
    from apportion.plans.arms import sketch_arms
    from apportion.plans.recipe import parse_recipe

    sketch_arms(values, arms)
    parsed = None if arms else parse_recipe(values)
    from apportion.plans.comparison_plan import plan_comparison
    from apportion.plans.plan import plan_recipe

    quiet_libraries()
    if parsed is None:
        planned = plan_comparison(values, arms, numbers, timed=True).as_dict()
    else:
        planned = plan_recipe(parsed, timed=True).as_dict()
    if as_json:
        print_json(planned)
    elif arms:
        _print_arms(planned)
    else:
        _print(planned)


def _print(plan: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    limit = plan["budget"]["limit"]
    unit = "FLOPs in all" if plan["budget"]["unit"] == "flops" else f"{plan['budget']['unit']} tokens"
    console.print(
        f"Budget: {limit:,.0f} {unit}. About {plan['steps']:,} steps on {plan['examples']:,} examples.\n"
        f"Model: {plan['parameters']['total']:,} parameters, {plan['parameters']['trainable']:,} trained; "
        f"{plan['memory'] / 2**30:.2f} GiB for weights, gradients and optimizer, activations on top.\n"
        f"Time: {_time(plan)}, {_by(plan)}."
    )
    if len(plan["stages"]) > 1:
        console.print(f"Stages: {_stages(plan['stages'])}.", markup=False)
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
    _print_tables(console, accounts, tasks)
    _print_targets(console, plan)
    _print_advice(console, {"": plan})


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    """Return what comes before training, training, and what comes after it."""
    place = [stage["name"] for stage in stages].index("train")
    before, training, after = stages[:place], stages[place], stages[place + 1 :]
    said = [f"training, {training['flops']:.3g} FLOPs"]
    if before:
        finished, flops = sum(s["finished"] for s in before), sum(s["flops"] for s in before)
        named = ", ".join(stage["name"] for stage in before[:3]) + (f" and {len(before) - 3} more" * (len(before) > 3))
        said.insert(0, f"before training {named}, {finished} of {len(before)} finished, {flops:.3g} FLOPs")
    said += [f"benchmarks, at most {stage['flops']:.3g} FLOPs, which no budget pays" for stage in after]
    return "; then ".join(said)


def _print_arms(planned: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console, arms, total, seeds = _console(), planned["arms"], planned["total"], planned["seeds"]
    plan = next(iter(arms.values()))
    console.print(f"{len(arms)} arms with {seeds} seed{'s' if seeds > 1 else ''}: {total['runs']} runs. A run:")
    shown = [account for account, flops in total["accounts"].items() if flops]
    table = Table("arm", "steps", "FLOPs", *shown, "time", title="Expected spending")
    for arm, plan in arms.items():
        flops = sum(account["flops"] for account in plan["accounts"].values())
        parts = [f"{plan['accounts'].get(name, {}).get('flops', 0.0) / flops:.0%}" for name in shown]
        table.add_row(escape(arm), f"{plan['steps']:,}", f"{flops:.3g}", *parts, _time(plan))
    parts = [f"{total['accounts'][name] / total['flops']:.0%}" for name in shown]
    table.add_section()
    table.add_row("all runs", f"{total['steps']:,}", f"{total['flops']:.3g}", *parts, _time(total))
    _print_tables(console, table)
    console.print(f"Time {_by(plan)}.")
    _print_targets(console, plan)
    _print_advice(console, arms)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _print_tables(console: Console, *tables: Table) -> None:
    for table in tables:
        for column in table.columns[1:]:
            column.justify = "right"
        console.print(table)


def _print_targets(console: Console, plan: Mapping[str, Any]) -> None:
    """Print a line a target, and what was found in the data, such as how much was taken out for the targets."""
    for name, target in plan["targets"].items():
        console.print(
            f"Target: {name}, importance {target['importance']:g}; {target['steer']:,} examples to steer by, "
            f"{target['report']:,} to report on, {target['train']:,} to train on.",
            markup=False,
        )
    for finding in plan["findings"] if plan["targets"] else ():
        console.print(f"Found: {finding}", markup=False)


def _print_advice(console: Console, plans: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what is advised, once for all arms that the same is to be set for."""
    arms: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for arm, plan in plans.items():
        for advice in plan["advice"]:
            arms.setdefault(advice["set"], []).append(arm)
            seen.setdefault(advice["set"], advice["seen"])
    for to_set, named in arms.items():
        where = "" if len(named) == len(plans) else f"{', '.join(named)}: "
        console.print(f"Advice: {where}{seen[to_set]}; set {to_set}.", markup=False)


def _by(plan: Mapping[str, Any]) -> str:
    if plan["timed_steps"]:
        return f"judged from {plan['timed_steps']} of its steps, made here"
    from apportion.plans.timing import UTILISATION

    least, *_, most = UTILISATION
    rate = f"{plan['flops_per_second'] / 1e9:,.0f} GFLOP/s"
    return f"if training reaches {least:.0%} to {most:.0%} of the {rate} that this machine reaches in large matmuls"


def _time(plan: Mapping[str, Any]) -> str:
    """Return a range in the unit that suits its upper end."""
    low, high = plan["seconds_range"]
    for unit, seconds, from_ in (("h", 3600, 5400), ("min", 60, 90), ("s", 1, 1)):
        if high >= from_:
            return "{} to {} {}".format(*_digits([low / seconds, high / seconds]), unit)
    return "less than a second"


def _digits(numbers: Sequence[float]) -> list[str]:
    return [f"{number:,.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0") for number in numbers]
