"""CSV files of rows, with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from apportion._errors import ApportionError
from apportion.tasks.files import read_text
from apportion.tasks.sources._rows import Row, RowFiles


class Csv(RowFiles):
    """Comma-separated files, plain or gzipped, whose first line names the fields; conversations do not fit in these."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".csv.gz")

    def rows(self, file: Path) -> Iterator[Row]:
        """Yield the file's rows; a row of more or fewer cells than the header is an error."""
        reader = csv.DictReader(io.StringIO(read_text(file), newline=""), strict=True)
        try:
            for row in reader:
                where = f"{file}:{reader.line_num}"
                if None in row or None in row.values():
                    raise ApportionError(f"{where} has not as many cells as the header: quote cells that hold commas.")
                yield where, row
        except csv.Error as error:
            raise ApportionError(f"{file}:{reader.line_num + 1} is not CSV: {error}.") from None
