"""Options that several commands share, and the loading they all do."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from apportion._errors import ApportionError

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: one YAML file.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as mixture.floor=0.2; repeatable."
    ),
]
RunOut = Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<recipe's name>]")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable line instead of tables and bars.")]


def recipe_values(recipe: Path, assignments: list[str] | None) -> dict[str, Any]:
    """Read a recipe and apply ``--set``."""
    from apportion.plans.recipe import overridden, read_yaml

    return overridden(read_yaml(recipe), assignments or [])


def listed(text: str) -> list[str]:
    """Read names by comma."""
    return [part.strip() for part in text.split(",") if part.strip()]


def seed_numbers(text: str) -> list[int]:
    """Read seeds by comma.

    Raises:
        ApportionError: One is no whole number.
    """
    for part in listed(text):
        if not (part.isascii() and part.isdigit()):
            raise ApportionError(f"'--seeds' takes whole numbers by comma, such as 0,1,2; '{part}' is none.")
    return [int(part) for part in listed(text)]


def quiet_libraries() -> None:
    """Keep Hugging Face's bars and hints out of ours."""
    import transformers

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def print_json(value: object) -> None:
    """Print one line of JSON."""
    typer.echo(json.dumps(value))
