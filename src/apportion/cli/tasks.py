"""`apportion tasks`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from apportion._errors import ApportionError
from apportion.cli._options import Json, print_json


def tasks(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a folder, a Hub data set, or 'playground'.")],
    source: Annotated[str | None, typer.Option(help="The source's name, where the path does not tell.")] = None,
    group_by: Annotated[str | None, typer.Option(help="natural_instructions: 'task' or 'category'.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count tokens with this tokenizer (a name or folder). [default: a trained BPE]")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of distinct prompts to validate on.")] = 0.05,
    max_length: Annotated[int, typer.Option(help="Longest example, in tokens.")] = 512,
    as_json: Json = False,
) -> None:
    """Say what is there: tasks, splits, tokens by kind, dirt found."""
    values: dict[str, Any] = {"validation": validation, "max_length": max_length}
    values |= {"source": "playground"} if data == "playground" else {"path": data}
    values |= {key: value for key, value in {"source": source, "group_by": group_by}.items() if value}
    if not 0 < validation < 1:
        raise ApportionError(f"'--validation' is a share between 0 and 1, not {validation:g}.")
    from apportion._config import validate
    from apportion.tasks import TasksSpec, load_encoded, tree
    from apportion.training.models import ModelSpec, TokenizerSpec, load_tokenizer

    spec = validate(TasksSpec, values, "tasks")
    trained = TokenizerSpec(train="bpe", vocab_size=4096)
    model = ModelSpec(name=tokenizer) if tokenizer else ModelSpec(config={"model_type": "llama"}, tokenizer=trained)
    encoded = load_encoded(spec, load_tokenizer(model, spec), max_length)
    if as_json:
        print_json({"fingerprint": encoded.fingerprint, "tasks": encoded.counts(), "findings": encoded.findings})
        return
    from rich.console import Console

    Console().print(tree(encoded))
