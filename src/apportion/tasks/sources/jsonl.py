"""JSON Lines: one row a line; also a .json file that is a list of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from apportion._errors import ApportionError
from apportion.tasks.files import read_text
from apportion.tasks.sources._rows import Row, RowFiles


class Jsonl(RowFiles):
    """Files of rows as JSON, plain or gzipped; ``shapes.to_example`` says which rows are understood."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz", ".json", ".json.gz")

    def rows(self, file: Path) -> Iterator[Row]:
        """Yield the file's rows; blank lines are passed over."""
        text = read_text(file)
        if file.name.removesuffix(".gz").endswith(".json"):
            yield from _listed(text, file)
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _row(_parse(line, f"{file}:{number}"), f"{file}:{number}")


def _listed(text: str, file: Path) -> Iterator[Row]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ApportionError(f"{file}:{error.lineno} is not JSON: {error.msg.lower()}.") from None
    if not isinstance(content, list):
        raise ApportionError(f"{file} must hold a list of rows, not one {type(content).__name__}.")
    for i, value in enumerate(content):
        yield _row(value, f"{file}, row {i}")


def _parse(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ApportionError(f"{where} is not JSON: {error.msg.lower()} at character {error.colno}.") from None


def _row(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise ApportionError(f"{where} must be an object with named fields, not {type(value).__name__}.")
    return where, value
