"""Rows of a Parquet file, a few at a time."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
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
                for row in _rows(_plain(batch)):
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
            remedy = "unpack it if it is packed, or rename it to what it is, such as .jsonl or .csv"
            raise DataInvalid(str(path), fault, remedy)


def _check_names(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        fault = f"two columns are named '{twice[0]}'"
        raise DataInvalid(str(path), fault, "rename one of them and write the file again")


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with text for what Python has no plain value for: times, decimals, short floats."""
    columns = []
    for column in batch.columns:
        kind = column.type
        if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
            column = _as_text(column)
        elif pa.types.is_float16(kind) or pa.types.is_float32(kind):
            text = _as_text(column)
            column = pc.if_else(pc.is_nan(pc.cast(column, pa.float64())), None, text)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_text(column: pa.Array) -> pa.Array:
    try:
        return pc.cast(column, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a time zone that nobody knows, a span
        return pc.cast(column.cast(pa.int64()), pa.string())


def _rows(batch: pa.RecordBatch) -> Iterator[Row | None]:
    """None stands for a row whose text is not UTF-8, which Parquet does not check."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="lossy")
    except UnicodeDecodeError:
        for position in range(batch.num_rows):
            try:
                yield batch.slice(position, 1).to_pylist(maps_as_pydicts="lossy")[0]
            except UnicodeDecodeError:
                yield None
