"""What `apportion plan` says of an inference recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from apportion.cli._options import print_json, quiet_libraries


def plan_inference(values: Mapping[str, Any], *, as_json: bool) -> None:
    """Price an inference recipe and print it."""
    from apportion.plans.serving import parse_serving, plan_serving

    recipe = parse_serving(values)
    quiet_libraries()
    planned = plan_serving(recipe).as_dict()
    if as_json:
        print_json(planned)
        return
    _print(planned)


def _print(planned: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from apportion.reports import words

    console = Console(highlight=False)
    kv = planned["inference"].get("kv", "everything")
    console.print(
        f"Model: {planned['model']}. {words.several(planned['prompts'], 'prompt')}, each answered at full length.\n"
        f"Cache: {planned['cache']['type']}, of which a decode step attends to {kv} in each KV head.",
        markup=False,
        soft_wrap=True,
    )
    takes = Table("a request", "mean", "longest", title="What it takes")
    for name, said in _rows(words.size, words.flops).items():
        takes.add_row(name, said(planned["mean"]), said(planned["longest"]))
    limits = Table("key", "limit", "binds", title="Its budget, of the longest request")
    for key, limit in planned["inference"].items():
        if key not in ("over", "tbt", "ttft"):
            limits.add_row(key, str(limit), _when(planned["binds"].get(key)))
    for table in (takes, limits):
        for column in table.columns[1:]:
            column.justify = "right"
        console.print(table)
    console.print(f"'inference.{next(iter(planned['binds']))}' binds first.", markup=False)


def _rows(size: Callable[[float], str], flops: Callable[[float], str]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    return {
        "prompt tokens": lambda of: f"{of['prompt']:,.0f}",
        "thinking tokens": lambda of: f"{of['thinking']:,.0f}",
        "inserted tokens": lambda of: f"{of['inserted']:,.0f}",
        "answer tokens": lambda of: f"{of['answer']:,.0f}",
        "cache at most": lambda of: size(of["resident_peak"]),
        "cache in a decode step": lambda of: size(of["a_step"]["resident"]),
        "read in a decode step": lambda of: size(of["a_step"]["read"]),
        "read in all": lambda of: size(of["read"]),
        "FLOPs": lambda of: flops(of["flops"]),
        "FLOPs of attention": lambda of: flops(of["attention_flops"]),
    }


def _when(generated: int | None) -> str:
    if generated is None:
        return "never"
    return "at the prompt" if generated == 0 else f"after {generated:,} generated"
