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
SEPARATOR_LINE = re.compile(r"sep=(.)\s*\Z")
"""A first line by which Excel is told the delimiter."""
UNCLOSED = Reason("a quote that is never closed", "close it, or double each quote inside a field")
NOT_CSV = Reason(
    "a row with a stray quote", "quote whole fields, and double each quote inside a field"
)


def csv_records(path: Path) -> Iterator[Record]:
    """The file's rows. Raises DataInvalid where its header cannot be used."""
    csv.field_size_limit(FIELD_LIMIT)
    with open_text(path, newline="") as file:
        skipped, delimiter, header_line = _first_lines(file.readline(), file.readline)
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


def _first_lines(first: str, following: Callable[[], str]) -> tuple[int, str, str]:
    """Lines before the header, the delimiter, the header's line."""
    told = SEPARATOR_LINE.match(first)
    if told is None:
        return 0, _delimiter(first), first
    return 1, told[1], following()


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
        raise DataInvalid(f"{path}:1", fault, "write the names of the columns again") from None
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        fault = f"column '{twice[0]}' stands twice in the header"
        raise DataInvalid(f"{path}:1", fault, "rename one of them, or take one out")
    return names


def _records(
    path: Path,
    reader: "_csv.Reader",
    header: list[str],
    skipped: int,
    delimiter: str,
) -> Iterator[Record]:
    wrong_width = Reason(
        f"a row with other than {len(header)} fields",
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
                yield Record(place, None, NOT_CSV)
            continue
        if not any(field.strip() for field in fields):
            continue
        while len(fields) > len(header) and not fields[-1].strip():
            fields.pop()
        if len(fields) != len(header):
            yield Record(place, None, wrong_width)
        elif any(UNDECODED.search(field) for field in fields):
            yield Record(place, None, NOT_UTF8)
        else:
            yield Record(place, dict(zip(header, fields, strict=True)))
