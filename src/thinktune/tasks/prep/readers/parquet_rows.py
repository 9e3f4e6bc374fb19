"""Rows of a Parquet file, a few at a time."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.readers.opening import PARQUET_MAGIC
from thinktune.tasks.prep.readers.records import NOT_UTF8, Record, Row

ROWS_AT_ONCE = 256
BUFFER = 1 << 20
"""Bytes of a column that are read at once. Without it pyarrow reads whole row groups, which may be
gigabytes."""


def parquet_records(path: Path) -> Iterator[Record]:
    """The file's rows. Raises DataInvalid where it is no whole Parquet file."""
    _check_is_parquet(path)
    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            _check_names(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in _rows(batch):
                    number += 1
                    place = f"{path}: row {number}"
                    yield Record(place, row) if row is not None else Record(place, None, NOT_UTF8)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        where = f" after row {number}" if number else ""
        fault = f"not a whole Parquet file{where} ({reason})"
        raise DataInvalid(str(path), fault, "write or copy the file again") from None


def _check_is_parquet(path: Path) -> None:
    if not path.is_file():
        raise DataInvalid(str(path), "no such file", "check data.path")
    if path.stat().st_size == 0:
        raise DataInvalid(str(path), "the file is empty", "check how it was written")
    with path.open("rb") as file:
        if file.read(4) != PARQUET_MAGIC:
            fault = "the name says Parquet, the content is not Parquet"
            raise DataInvalid(str(path), fault, "rename it to what it is, such as .jsonl or .csv")


def _check_names(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        fault = f"two columns are named '{twice[0]}'"
        raise DataInvalid(str(path), fault, "rename one of them and write the file again")


def _rows(batch: pa.RecordBatch) -> Iterator[Row | None]:
    """None stands for a row whose text is not UTF-8, which Parquet does not check."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for position in range(batch.num_rows):
            try:
                yield batch.slice(position, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None
