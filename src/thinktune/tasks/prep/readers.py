"""Rows out of files: JSON, JSON lines, Parquet and CSV, one dict a row.

Called by `sources`. The kind is taken from the file's name and held against its first bytes, and
a fault names the file and the line.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.spec.errors import DataInvalid

Row = dict[str, Any]

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
PARQUET_MAGIC = b"PAR1"
CSV_FIELD_LIMIT = 64 * 1024 * 1024
"""Bytes; Python's own limit of 128 KiB is shorter than a long chain of thought."""


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of one file, in its order. Raises DataInvalid."""
    suffix = ".jsonl" if path.suffix == ".ndjson" else path.suffix.lower()
    if suffix not in SUFFIXES:
        fault = f"kind of file '{path.suffix}' is not known"
        raise DataInvalid(str(path), fault, f"use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataInvalid(str(path), "no such file", "check data.path")
    if path.stat().st_size == 0:
        raise DataInvalid(str(path), "the file is empty", "check how it was written")
    with path.open("rb") as file:
        is_parquet = file.read(4) == PARQUET_MAGIC
    if is_parquet != (suffix == ".parquet"):
        found = "Parquet" if is_parquet else "not Parquet"
        fault = f"the name says {suffix[1:]}, the content is {found}"
        raise DataInvalid(str(path), fault, "rename it to what it is")
    return {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".csv": _csv}[suffix](path)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                raise DataInvalid(place, "not UTF-8 text", "save the file as UTF-8") from None
            except ValueError as error:
                cut = not line.endswith(b"\n")
                what = "the last line is cut off" if cut else f"not JSON ({error})"
                remedy = "write the file again" if cut else "one JSON object per line, please"
                raise DataInvalid(place, what, remedy) from None
            yield _object(row, place)


def _json(path: Path) -> Iterator[Row]:
    """A list of objects, an object that holds one list, or JSON lines under the wrong name."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataInvalid(str(path), "not UTF-8 text", "save the file as UTF-8") from None
    try:
        data = json.loads(text)
    except ValueError as error:
        first = text.split("\n", 1)[0]
        if first.lstrip().startswith("{") and _is_json(first):
            yield from _jsonl(path)
            return
        raise DataInvalid(str(path), f"not JSON ({error})", "write the file again") from None
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if len(lists) == 1 else [data]
    if not isinstance(data, list):
        raise DataInvalid(str(path), "holds no list of rows", "use a list of objects")
    for number, row in enumerate(data):
        yield _object(row, f"{path}: row {number}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _object(row: object, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataInvalid(place, f"a row is a {type(row).__name__}", "rows are JSON objects")
    return row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        fault = f"not a whole Parquet file ({reason})"
        raise DataInvalid(str(path), fault, "write or copy the file again") from None


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    place = f"{path}:{reader.line_num}"
                    fault = f"a row with other than {len(reader.fieldnames or [])} columns"
                    raise DataInvalid(place, fault, "quote fields that hold commas or line breaks")
                yield dict(row)
    except UnicodeDecodeError:
        raise DataInvalid(str(path), "not UTF-8 text", "save the file as UTF-8") from None
    except csv.Error as error:
        raise DataInvalid(str(path), f"not CSV ({error})", "write the file again") from None
