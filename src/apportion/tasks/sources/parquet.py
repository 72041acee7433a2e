"""Parquet files of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from apportion._errors import ApportionError
from apportion.tasks.sources._rows import Row, RowFiles


class Parquet(RowFiles):
    """Parquet files; ``shapes.to_example`` says which rows are understood."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def rows(self, file: Path) -> Iterator[Row]:
        """Yield the file's rows, read a batch at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            i = 0
            for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    yield f"{file}, row {i}", row
                    i += 1
        except (pa.ArrowInvalid, OSError) as error:
            raise ApportionError(f"{file} is not a whole Parquet file: {str(error).splitlines()[0]}") from None
