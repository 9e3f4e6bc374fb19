"""Rows of a JSON file: a row on each line, a list of rows, rows one after the other over many
lines, or an object around one list of rows.

Which of them a file is, is told by its content: `.json` and `.jsonl` are mistaken for each other
all the time. Nothing is held but the row at hand, save for an object around a list, which is read
whole and may have up to MAX_VALUE characters.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.prep.readers.json_values import (
    BETWEEN,
    CUT_OFF,
    DECODER,
    NOT_JSON,
    KeyTwiceError,
    Values,
    are_rows,
    checked,
    cut_off,
    incomplete,
    list_of_rows,
)
from thinktune.tasks.prep.readers.opening import open_text
from thinktune.tasks.prep.readers.records import (
    HALF_A_PAIR,
    KEY_TWICE,
    NOT_UTF8,
    SURROGATE,
    TOO_DEEP,
    UNDECODED,
    Record,
    Row,
    has_half_pair,
)

_GLUED = re.compile(r"\}[\s,]*\{")
"""Where one object ends and the next begins in one line; inside a list of turns too, so it is only
looked at behind an object that cannot be read."""
TRIED = 20
"""Places in a line at which a next object is looked for."""


def json_records(path: Path) -> Iterator[Record]:
    """The file's rows. Raises DataInvalid where it holds no rows, or none from some place on."""
    with open_text(path, newline=None) as file:
        number, first = _first_line(file)
        if first is None:
            raise DataInvalid(str(path), "the file is empty", "check how it was written")
        if _is_row_by_line(first):
            lines = enumerate(chain([first], file), start=number)
            yield from _sole(path, _lines(path, lines))
        else:
            yield from _sole(path, Values(path, first, file).records())


def _first_line(file: TextIO) -> tuple[int, str | None]:
    """The first line that holds something, and its number."""
    for number, line in enumerate(file, start=1):
        if line.strip("\ufeff \t\r\n"):
            return number, line
    return 0, None


def _is_row_by_line(first: str) -> bool:
    """Whether the first line ends where an object ends. A list, or an object that goes on in the
    next line, is no row by itself."""
    text = first.strip("\ufeff \t\r\n")
    if text.startswith("["):
        return False
    try:
        DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        opens = text.startswith("{") and incomplete(error, text)
        # A broken row in its own line, unless it is the beginning of an object over several.
        return not (opens and len(text) < 200 and not text.endswith("}"))
    except (ValueError, RecursionError):
        return True
    return True


def _lines(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Record]:
    for number, line in lines:
        text = line.strip("\ufeff \t\r\n,")
        position = 0
        while position < len(text):
            record, position = _record(text, position, f"{path}:{number}", line.endswith("\n"))
            yield record
            between = BETWEEN.match(text, position)
            position = between.end() if between else position


def _record(text: str, position: int, place: str, ended: bool) -> tuple[Record, int]:
    """The object that begins there, and where the next one can begin."""
    try:
        value, end = DECODER.raw_decode(text, position)
    except RecursionError:
        return Record(place, None, TOO_DEEP), len(text)
    except KeyTwiceError:
        return Record(place, None, KEY_TWICE), _behind(text, position)
    except json.JSONDecodeError as error:
        after = _behind(text, error.pos)
        if UNDECODED.search(text, position, after):
            return Record(place, None, NOT_UTF8), after
        cut = not ended and after == len(text) and cut_off(error, text)
        return Record(place, None, CUT_OFF if cut else NOT_JSON), after
    except ValueError:  # a number of thousands of digits
        return Record(place, None, NOT_JSON), _behind(text, position)
    if UNDECODED.search(text, position, end):
        return Record(place, None, NOT_UTF8), end
    return checked(place, value, escapes=bool(SURROGATE.search(text, position, end))), end


def _behind(text: str, position: int) -> int:
    """Where the next object of a line begins, if what follows is whole objects to its end. Turns
    inside a broken row look like objects too, but something is left over behind them."""
    for tried, found in enumerate(_GLUED.finditer(text, position)):
        if tried >= TRIED:
            break
        start = at = found.end() - 1
        try:
            while at < len(text):
                value, at = DECODER.raw_decode(text, at)
                if not isinstance(value, dict):
                    raise ValueError
                between = BETWEEN.match(text, at)
                at = between.end() if between else at
        except (ValueError, RecursionError):
            continue
        return start
    return len(text)


def _sole(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    """The rows; where a file is one object alone, those that it wraps."""
    first = next(records, None)
    if first is None:
        raise DataInvalid(str(path), "holds no rows", "write a JSON object for each row")
    second = next(records, None)
    if second is None and first.row is not None:
        rows = _rows_inside(path, first.row)
        if rows is not None:
            for number, row in enumerate(rows, start=1):
                yield checked(f"{path}: row {number}", row, escapes=True)
            return
    yield from map(_rechecked, chain([first], [second] if second is not None else [], records))


def _rechecked(record: Record) -> Record:
    """A row that looked like an object around rows, and is none."""
    if record.row is not None and list_of_rows(record.row) and has_half_pair(record.row):
        return Record(record.place, None, HALF_A_PAIR)
    return record


def _rows_inside(path: Path, data: Row) -> list[Row] | None:
    """The rows that an object wraps; None where it is a row: its list may be turns or options.

    Raises DataInvalid for what pandas and datasets write by columns or by splits."""
    lists = {name: value for name, value in data.items() if isinstance(value, list)}
    rows = {name for name, value in lists.items() if are_rows(value)}
    wrapped = list_of_rows(data)
    if wrapped is not None:
        found: list[Row] = data[wrapped]
        return found
    if {"columns", "index", "data"} == data.keys():
        raise _by_columns(path, "pandas.DataFrame(**json.load(open(FILE)))")
    empty = {name for name, value in lists.items() if not value}
    if rows and len(lists) > 1 and rows | empty == data.keys():
        fault = f"holds several lists of rows ({', '.join(sorted(rows))})"
        raise DataInvalid(str(path), fault, "write the list to train on to a file of its own")
    plain = not any(isinstance(each, dict) for values in lists.values() for each in values)
    same = len({len(values) for values in lists.values()}) == 1
    if len(lists) > 1 and len(lists) == len(data) and same and plain:
        raise _by_columns(path)
    dicts = [value for value in data.values() if isinstance(value, dict)]
    if dicts and len(dicts) == len(data) and all(_is_index(value) for value in dicts):
        raise _by_columns(path)
    return None


def _by_columns(path: Path, frame: str = "pandas.DataFrame(json.load(open(FILE)))") -> DataInvalid:
    fault = "holds columns, not rows, as pandas and datasets write them"
    remedy = f'write rows: {frame}.to_json("rows.jsonl", orient="records", lines=True)'
    return DataInvalid(str(path), fault, remedy)


def _is_index(value: dict[str, Any]) -> bool:
    return bool(value) and all(key.isdigit() for key in value)
