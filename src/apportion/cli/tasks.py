"""`apportion tasks`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion._errors import ApportionError
from apportion.cli._options import Json, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from apportion.tasks import EncodedCollection

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tasks(  # noqa: PLR0913, PLR0917 - a command's options
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="Files, folders, or a Hub data set; or 'playground', 'scratchpad'."),
    ],
    source: Annotated[str | None, typer.Option(help="The source's name, where the path does not tell.")] = None,
    group_by: Annotated[str | None, typer.Option(help="natural_instructions: 'task' or 'category'.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count tokens with this tokenizer (a name or folder). [default: a trained BPE]")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of distinct prompts to validate on.")] = 0.05,
    max_length: Annotated[int, typer.Option(help="Longest example, in tokens.")] = 512,
    show: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Print the first N train examples of each task as the model sees them. What is supervised is green in "
            "a terminal and stands in [[ ]] elsewhere.",
        ),
    ] = 0,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A key of the recipe's tasks, such as columns.prompt=question."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is there: tasks, splits, tokens by kind, dirt found."""
    values: dict[str, Any] = {"validation": validation, "max_length": max_length}
    values |= {"path": data[0] if len(data) == 1 else data}
    values |= {key: value for key, value in {"source": source, "group_by": group_by}.items() if value}
    if not 0 < validation < 1:
        raise ApportionError(f"'--validation' is a share between 0 and 1, not {validation:g}.")
    if show < 0:
        raise ApportionError(f"'--show' is how many examples of each task to print, not {show}.")
    from apportion._config import validate
    from apportion.tasks import TasksSpec, load_encoded, load_tokenizer_trained, shown

    if assignments:
        from apportion.plans.recipe import overridden

        values = overridden(values, assignments)
    spec = validate(TasksSpec, values, "tasks")
    if tokenizer:
        from apportion.models.loading import load_tokenizer  # which loads torch, and the rest does not
        from apportion.models.specs import ModelSpec

        loaded = load_tokenizer(ModelSpec(name=tokenizer), spec)
    else:
        loaded = load_tokenizer_trained(spec, "bpe", 4096)
    encoded = load_encoded(spec, loaded, spec.max_length)
    examples = shown(encoded, loaded, show)
    if as_json:
        said = {"fingerprint": encoded.fingerprint, "tasks": encoded.counts(), "findings": encoded.findings}
        print_json(said | ({"shown": examples} if show else {}))
        return
    _print(encoded, examples)


def _print(encoded: EncodedCollection, examples: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from apportion.tasks import table

    console = Console(highlight=False)
    console.print(table(encoded), crop=False)
    instructed = [f"{task.name}: {task.instruction}" for task in encoded if task.instruction]
    for title, lines in (("Instructions", instructed), ("Found in the data", encoded.findings)):
        if lines:
            console.print(f"\n{title}:", style="bold")
            # On a pipe a sentence is a line, to be searched for.
            said = "\n".join(f"  {_safe(line)}" for line in lines)
            console.print(said, markup=False, soft_wrap=not console.is_terminal)
    for example in examples:
        _print_example(console, example)


def _print_example(console: Console, example: dict[str, Any]) -> None:
    from rich.text import Text

    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    text = Text()
    for part, supervised in example["segments"]:
        if supervised and not coloured:
            text.append(f"[[{_safe(part)}]]")
        else:
            text.append(_safe(part), style="green" if supervised else "")
    console.print(f"\n{_safe(example['task'])}, {_safe(example['id'])}:", style="bold", markup=False, soft_wrap=True)
    console.print(text, soft_wrap=True)


def _safe(text: str) -> str:
    """Return the text with control characters, which a terminal would obey, written out."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
