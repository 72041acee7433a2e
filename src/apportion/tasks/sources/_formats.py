"""How a file of rows is read, by its suffix."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from apportion._errors import ApportionError
from apportion.tasks.files import read_text, stem, unreadable
from apportion.tasks.shapes import RowError

# Where a row stands, and the row, of whatever kind; or why no row could be made of what stands there.
Row = tuple[str, object]
_NATURAL_INSTRUCTIONS = {"Definition", "Instances"}


def json_lines(file: Path) -> Iterator[Row]:
    """Yield the rows of a file that holds one a line; blank lines are passed over."""
    return _lines(read_text(file), file)


def json_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a file that holds one list of them, or one a line after all.

    Raises:
        ApportionError: Not JSON, or one object.
    """
    text = read_text(file)
    if one_a_line(line for line in text.split("\n")):
        yield from _lines(text, file)
        return
    content = parse_json(text, file)
    if isinstance(content, list):
        yield from ((f"{file}, row {i}", value) for i, value in enumerate(content))
    elif isinstance(content, dict) and content.keys() >= _NATURAL_INSTRUCTIONS:
        raise ApportionError(
            f"{file} is a Super-NaturalInstructions task among rows: put such in a folder of their own."
        )
    else:
        raise ApportionError(f"{file} must hold a list of rows, not one {type(content).__name__}.")


def one_a_line(lines: Iterator[str]) -> bool:
    """Say whether the first two lines that are not blank are an object each, by how these start and end."""
    first = list(islice((line.strip() for line in lines if line.strip()), 2))
    return len(first) == 2 and first[0].startswith("{") and first[0].endswith("}") and first[1].startswith("{")


def parse_json(text: str, file: Path) -> object:
    """Return what ``text``, all of ``file``, holds.

    Raises:
        ApportionError: It is not JSON, or nothing that Python can hold.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ApportionError(f"{file}:{error.lineno} is not JSON: {error.msg.lower()}.") from None
    except (ValueError, RecursionError) as error:
        raise ApportionError(f"{file} is not read: {_beyond(error)}.") from None


def _lines(text: str, file: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file}:{number}"
            yield where, _line(line, where)


def _line(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return RowError(f"{where} is not JSON: {error.msg.lower()} at character {error.colno}")
    except (ValueError, RecursionError) as error:
        return RowError(f"{where} is not read: {_beyond(error)}")


def _beyond(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else "it holds a number with too many digits"


def csv_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of comma-separated values under a header.

    Raises:
        ApportionError: A header that names a field twice, or a quote that is never closed.
    """
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    header: list[str] | None = None
    limit = csv.field_size_limit(sys.maxsize)
    try:
        while True:
            where = f"{file}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None or "unexpected end" in str(error):
                    raise ApportionError(f"{where} is not CSV up to the file's end: {error}.") from None
                yield where, RowError(f"{where} is not CSV: {error}")
                continue
            if header is None and cells:
                header = _header(cells, where)
            elif header is not None and cells:
                yield where, _record(header, cells, where)
    finally:
        csv.field_size_limit(limit)


def _header(cells: list[str], where: str) -> list[str]:
    twice = next((name for name in cells if cells.count(name) > 1), None)
    if twice is not None:
        raise ApportionError(f"{where} names the field '{twice}' twice: rename one of them.")
    return cells


def _record(header: list[str], cells: list[str], where: str) -> object:
    if len(cells) != len(header):
        return RowError(f"{where} has not as many cells as the header", "quote cells that hold commas")
    return dict(zip(header, cells, strict=True))


def parquet_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file, read a batch at a time.

    Raises:
        ApportionError: Not a whole Parquet file, or an unreadable one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        i = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                yield f"{file}, row {i}", row
                i += 1
    except PermissionError as error:
        raise unreadable(file, error) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ApportionError(f"{file} is not a whole Parquet file: {str(error).splitlines()[0]}") from None


def plain_text(file: Path) -> Iterator[Row]:
    """Yield the file as one row, a plain text."""
    yield str(file), {"text": read_text(file), "id": stem(file)}


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": json_lines,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".txt": plain_text,
}
