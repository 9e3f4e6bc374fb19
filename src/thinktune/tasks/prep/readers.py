"""Rows out of files: JSON, JSON lines, Parquet and CSV, one dict a row.

Called by `sources`. The kind is taken from the file's name and held against its first bytes, and
a fault names the file and the line.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.schema.errors import DataInvalid

Row = dict[str, Any]

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
PARQUET_MAGIC = b"PAR1"
CSV_FIELD_LIMIT = 64 * 1024 * 1024
"""Bytes; Python's own limit of 128 KiB is shorter than a long chain of thought."""
DELIMITERS = ",;\t|"
CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that by custom hold a list of turns."""
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of half a character beyond U+FFFF; only two of them make text."""
TOO_DEEP = "lists or objects nested too deeply"


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
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                row = json.loads(text)
            except UnicodeDecodeError:
                raise DataInvalid(place, "not UTF-8 text", "save the file as UTF-8") from None
            except RecursionError:
                raise DataInvalid(place, TOO_DEEP, "one JSON object per line, please") from None
            except ValueError as error:
                cut = not line.endswith(b"\n")
                what = "the last line is cut off" if cut else f"not JSON ({error})"
                remedy = "write the file again" if cut else "one JSON object per line, please"
                raise DataInvalid(place, what, remedy) from None
            yield _object(row, place, escapes=bool(SURROGATE.search(text)))


def _json(path: Path) -> Iterator[Row]:
    """A list of objects, an object around one such list, an object that is the only row, or JSON
    lines under the wrong name."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataInvalid(str(path), "not UTF-8 text", "save the file as UTF-8") from None
    try:
        data = json.loads(text)
    except RecursionError:
        raise DataInvalid(str(path), TOO_DEEP, "use a list of objects") from None
    except ValueError as error:
        first = text.split("\n", 1)[0]
        if first.lstrip().startswith("{") and _is_json(first):
            yield from _jsonl(path)
            return
        raise DataInvalid(str(path), f"not JSON ({error})", "write the file again") from None
    if isinstance(data, dict):
        data = _rows_inside(data)
    if not isinstance(data, list):
        raise DataInvalid(str(path), "holds no list of rows", "use a list of objects")
    escapes = bool(SURROGATE.search(text))
    for number, row in enumerate(data):
        yield _object(row, f"{path}: row {number}", escapes=escapes)


def _rows_inside(data: Row) -> list[Any]:
    """The rows that an object wraps, or the object itself: its list may be turns or options."""
    lists = [name for name, value in data.items() if isinstance(value, list)]
    if len(lists) != 1 or lists[0] in CONVERSATION_COLUMNS:
        return [data]
    rows: list[Any] = data[lists[0]]
    return rows if all(isinstance(row, dict) for row in rows) else [data]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _object(row: object, place: str, *, escapes: bool) -> Row:
    """The row, if it is one. With `escapes` its text is held against UTF-8: JSON can spell what no
    file or tokenizer takes."""
    if not isinstance(row, dict):
        raise DataInvalid(place, f"a row is a {type(row).__name__}", "rows are JSON objects")
    if escapes:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            fault = f"half a surrogate pair, \\u{ord(half):04x}, which is no character"
            raise DataInvalid(place, fault, "write the text again, whole characters only") from None
        except RecursionError:
            raise DataInvalid(place, TOO_DEEP, "rows are JSON objects") from None
    return row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except UnicodeDecodeError:
        raise DataInvalid(str(path), "not UTF-8 text", "save the text as UTF-8") from None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        fault = f"not a whole Parquet file ({reason})"
        raise DataInvalid(str(path), fault, "write or copy the file again") from None


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, strict=True, delimiter=delimiter)
            for row in reader:
                if None in row or None in row.values():
                    place = f"{path}:{reader.line_num}"
                    fault = f"a row with other than {len(reader.fieldnames or [])} columns"
                    remedy = f"quote fields that hold {delimiter!r} or line breaks"
                    raise DataInvalid(place, fault, remedy)
                yield dict(row)
    except UnicodeDecodeError:
        raise DataInvalid(str(path), "not UTF-8 text", "save the file as UTF-8") from None
    except csv.Error as error:
        raise DataInvalid(str(path), f"not CSV ({error})", "write the file again") from None


def _delimiter(header: str) -> str:
    """What stands most often between the names of the header; the comma where nothing does."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=unquoted.count)
