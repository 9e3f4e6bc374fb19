"""The rows of one file, by the kind that its name says."""

from collections.abc import Callable, Iterator
from pathlib import Path

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.readers.csv_rows import csv_records
from thinktune.tasks.prep.readers.json_rows import json_records
from thinktune.tasks.prep.readers.opening import PACKING_SUFFIXES
from thinktune.tasks.prep.readers.parquet_rows import parquet_records
from thinktune.tasks.prep.readers.records import Record

READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": json_records,
    ".ndjson": json_records,
    ".json": json_records,
    ".csv": csv_records,
    ".tsv": csv_records,
    ".parquet": parquet_records,
}


def kind_of(path: Path) -> str:
    """The suffix that tells the kind of file: `.jsonl` of `a.jsonl` and of `a.jsonl.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKING_SUFFIXES else suffix


def read_records(path: Path) -> Iterator[Record]:
    """Rows of one file, in its order. Raises DataInvalid."""
    reader = READERS.get(kind_of(path))
    if reader is None:
        fault = f"kind of file '{kind_of(path) or path.name}' is not known"
        packed = ", ".join(PACKING_SUFFIXES)
        remedy = f"use one of {', '.join(READERS)}; all but Parquet can be packed ({packed})"
        raise DataInvalid(str(path), fault, remedy)
    return reader(path)
