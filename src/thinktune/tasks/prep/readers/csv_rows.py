"""Rows of a CSV file, as Excel, pandas and scripts write them."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.readers.opening import open_text
from thinktune.tasks.prep.readers.records import NOT_UTF8, UNDECODED, Record
from thinktune.text.conversation import Reason

if TYPE_CHECKING:
    import _csv

FIELD_LIMIT = 64 * 1024 * 1024
"""Characters; Python's own limit of 128 KiB is shorter than a long chain of thought."""
DELIMITERS = ",;\t|"
MISSING = frozenset(("nan", "NaN", "<NA>", "#N/A", "NULL"))
"""What programs write for nothing."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*\Z')
"""A first line by which Excel is told the delimiter."""
SWALLOWED = 4
"""So many lines in a row that each have the header's number of delimiters are rows, not text."""
UNCLOSED = Reason("a quote that is never closed", "close it, or double each quote inside a field")
NOT_CSV = Reason(
    "a row with a stray quote", "quote whole fields, and double each quote inside a field"
)


def csv_records(path: Path) -> Iterator[Record]:
    """The file's rows. Raises DataInvalid where its header cannot be used."""
    csv.field_size_limit(FIELD_LIMIT)
    with open_text(path, newline="") as file:
        skipped, delimiter, header_line = _first_lines(file.readline)
        if header_line.lstrip().startswith(("{", "[{")):
            fault = "the name says CSV, the content is JSON"
            raise DataInvalid(str(path), fault, f"rename it to {path.stem}.jsonl")
        if UNDECODED.search(header_line):
            raise DataInvalid(f"{path}:1", NOT_UTF8.text, NOT_UTF8.remedy)
        reader = csv.reader(
            chain([header_line], file),
            strict=True,
            delimiter=delimiter,
            skipinitialspace=bool(re.search(rf"{re.escape(delimiter)} ", _unquoted(header_line))),
        )
        header = _header(path, reader)
        yield from _records(path, reader, header, skipped, delimiter)


def _first_lines(read: Callable[[], str]) -> tuple[int, str, str]:
    """Lines before the header, the delimiter, the header's line."""
    skipped, first = 0, read()
    while first and not first.strip():
        skipped, first = skipped + 1, read()
    told = SEPARATOR_LINE.match(first)
    if told is None:
        return skipped, _delimiter(first), first
    return skipped + 1, told[1], read()


def _unquoted(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _delimiter(header: str) -> str:
    """What stands most often between the names of the header; the comma where nothing does."""
    return max(DELIMITERS, key=_unquoted(header).count)


def _header(path: Path, reader: "_csv.Reader") -> list[str]:
    try:
        names = [name.strip() for name in next(reader)]
    except StopIteration:
        raise DataInvalid(str(path), "the file has no header", "name the columns") from None
    except csv.Error as error:
        fault = f"the header is not CSV ({error})"
        remedy = "write the names of the columns again"
        raise DataInvalid(f"{path}:1", fault, remedy) from None
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        fault = f"column '{twice[0]}' stands twice in the header"
        raise DataInvalid(f"{path}:1", fault, "rename one of them, or take one out")
    return names


def _holds_rows(fields: list[str], width: int, delimiter: str) -> bool:
    """Whether a field holds whole rows, up to a later quote that happens to close it."""
    for field in fields:
        lines = field.split("\n")[1:-1]
        if len(lines) >= SWALLOWED and all(
            line.count(delimiter) == width - 1 > 0 for line in lines
        ):
            return True
    return False


def _records(
    path: Path,
    reader: "_csv.Reader",
    header: list[str],
    skipped: int,
    delimiter: str,
) -> Iterator[Record]:
    too_few = Reason(
        f"a row with fewer than {len(header)} fields", "write all fields of each row, if empty"
    )
    wrong_width = Reason(
        f"a row with more than {len(header)} fields",
        f"quote fields that hold {delimiter!r} or line breaks",
    )
    while True:
        start = reader.line_num + 1
        place = f"{path}:{start + skipped}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                # It swallowed the rest of the file: each line of it is a row that is lost.
                for line in range(start, reader.line_num + 1):
                    yield Record(f"{path}:{line + skipped}", None, UNCLOSED)
            else:
                for line in range(start, reader.line_num + 1):
                    yield Record(f"{path}:{line + skipped}", None, NOT_CSV)
            continue
        if _holds_rows(fields, len(header), delimiter):
            for line in range(start, reader.line_num + 1):
                yield Record(f"{path}:{line + skipped}", None, UNCLOSED)
            continue
        if not any(field.strip() for field in fields):
            continue
        while len(fields) > len(header) and not fields[-1].strip():
            fields.pop()
        if len(fields) < len(header):
            yield Record(place, None, too_few)
        elif len(fields) > len(header):
            yield Record(place, None, wrong_width)
        elif any(UNDECODED.search(field) for field in fields):
            yield Record(place, None, NOT_UTF8)
        else:
            values = (None if field in MISSING else field for field in fields)
            yield Record(place, dict(zip(header, values, strict=True)))
