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
from thinktune.tasks.prep.readers.opening import open_text
from thinktune.tasks.prep.readers.records import (
    HALF_A_PAIR,
    KEY_TWICE,
    NOT_AN_OBJECT,
    NOT_UTF8,
    SURROGATE,
    TOO_DEEP,
    UNDECODED,
    Record,
    Row,
    has_half_pair,
)
from thinktune.text.conversation import Reason

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that by custom hold a list of turns."""
ROLE_NAMES = frozenset(
    ("question", "answer", "instruction", "output", "prompt", "completion", "response", "input")
)
"""An object with one of these is a row, whatever lists it holds."""
NOT_JSON = Reason("not JSON", "write each row as one JSON object on a line of its own")
CUT_OFF = Reason("the last row is cut off", "write or copy the file again")
MAX_VALUE = 1 << 28
"""Characters of one JSON value."""
CHUNK = 1 << 20
_GLUED = re.compile(r"\}[\s,]*\{")
"""Where one object ends and the next begins in one line; inside a list of turns too, so it is only
looked at behind an object that cannot be read."""
INDENT = 200
"""Characters that may stand before a row in its line."""
TRIED = 20
"""Places in a line at which a next object is looked for."""
_BETWEEN = re.compile(r"[\s,\ufeff]*")
_NEAR_END = 16
"""An error so close to the end of what was read may be an escape or a number that goes on."""


class _KeyTwiceError(ValueError):
    """An object names a value twice; JSON leaves open which of them counts."""


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
            yield from _sole(path, _Values(path, first, file).records())


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
        _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        opens = text.startswith("{") and _incomplete(error, text)
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
            between = _BETWEEN.match(text, position)
            position = between.end() if between else position


def _record(text: str, position: int, place: str, ended: bool) -> tuple[Record, int]:
    """The object that begins there, and where the next one can begin."""
    try:
        value, end = _DECODER.raw_decode(text, position)
    except RecursionError:
        return Record(place, None, TOO_DEEP), len(text)
    except _KeyTwiceError:
        return Record(place, None, KEY_TWICE), _behind(text, position)
    except json.JSONDecodeError as error:
        after = _behind(text, error.pos)
        if UNDECODED.search(text, position, after):
            return Record(place, None, NOT_UTF8), after
        cut = not ended and after == len(text) and _cut_off(error, text)
        return Record(place, None, CUT_OFF if cut else NOT_JSON), after
    except ValueError:  # a number of thousands of digits
        return Record(place, None, NOT_JSON), _behind(text, position)
    if UNDECODED.search(text, position, end):
        return Record(place, None, NOT_UTF8), end
    return _checked(place, value, escapes=bool(SURROGATE.search(text, position, end))), end


def _behind(text: str, position: int) -> int:
    """Where the next object of a line begins, if what follows is whole objects to its end. Turns
    inside a broken row look like objects too, but something is left over behind them."""
    for tried, found in enumerate(_GLUED.finditer(text, position)):
        if tried >= TRIED:
            break
        start = at = found.end() - 1
        try:
            while at < len(text):
                value, at = _DECODER.raw_decode(text, at)
                if not isinstance(value, dict):
                    raise ValueError
                between = _BETWEEN.match(text, at)
                at = between.end() if between else at
        except (ValueError, RecursionError):
            continue
        return start
    return len(text)


def _checked(place: str, value: object, *, escapes: bool) -> Record:
    if not isinstance(value, dict):
        return Record(place, None, NOT_AN_OBJECT)
    # In an object around a list of rows, each row is looked at by itself.
    if escapes and not _list_of_rows(value) and has_half_pair(value):
        return Record(place, None, HALF_A_PAIR)
    return Record(place, value)


class _Values:
    """Values one after the other, wherever lines end. Lists at the top are taken apart."""

    def __init__(self, path: Path, first: str, rest: TextIO) -> None:
        self._path = path
        self._rest = rest
        self._text = first.lstrip("\ufeff")
        self._at = 0
        self._ended = False
        self._number = 0
        self._inside = False
        """Whether a list was opened at the top."""
        self._indent: str | None = None
        """What stands before the first row in its line; None where that is more than spaces."""
        self._looked = False

    def records(self) -> Iterator[Record]:
        """All rows."""
        while (record := self._next()) is not None:
            yield record

    def _next(self) -> Record | None:
        while True:
            self._skip()
            if self._at >= len(self._text):
                if self._inside:
                    self._inside = False
                    return self._broken(CUT_OFF)
                return None
            mark = self._text[self._at]
            if mark == "[" and not self._inside:
                self._inside = True
            elif mark == "]" and self._inside:
                self._inside = False
            else:
                return self._value()
            self._at += 1

    def _skip(self) -> None:
        """Goes on to where a value begins, or to the end."""
        while True:
            between = _BETWEEN.match(self._text, self._at)
            self._at = between.end() if between else self._at
            if self._at < len(self._text) or not self._read():
                return

    def _read(self) -> bool:
        """Reads on, as much again as is held; what lies behind is let go."""
        if self._ended:
            return False
        # The beginning of its line is kept: it says how rows begin.
        newline = self._text.rfind("\n", 0, self._at)
        start = newline if self._at - newline < INDENT else self._at
        start = max(start, 0) if self._looked else 0
        self._text = self._text[start:]
        self._at -= start
        if len(self._text) > MAX_VALUE:
            fault = f"row {self._number + 1} is longer than {MAX_VALUE >> 20} million characters"
            raise DataInvalid(str(self._path), fault, "write a row on each line (JSON lines)")
        more = self._rest.read(max(CHUNK, len(self._text)))
        self._ended = not more
        self._text += more
        return bool(more)

    def _keep_indent(self) -> None:
        """Takes how rows begin from the first one that begins its line."""
        if self._indent is not None:
            return
        newline = self._text.rfind("\n", 0, self._at)
        before = self._text[newline + 1 : self._at]
        if not before.strip() and (newline >= 0 or not self._looked):
            self._indent = before
        self._looked = True

    def _value(self) -> Record:
        self._number += 1
        place = f"{self._path}: row {self._number}"
        self._keep_indent()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except _KeyTwiceError:
                _, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
                return self._broken(KEY_TWICE)
            except RecursionError:
                return self._passed_over(TOO_DEEP, TOO_DEEP.text)
            except json.JSONDecodeError as error:
                if _incomplete(error, self._text) and self._read():
                    continue
                if self._ended and _cut_off(error, self._text):
                    self._at = len(self._text)
                    self._inside = False
                    return self._broken(CUT_OFF)
                return self._passed_over(NOT_JSON, str(error))
            except ValueError as error:
                return self._passed_over(NOT_JSON, str(error))
            spelled = self._text[self._at : end]
            self._at = end
            if UNDECODED.search(spelled):
                return Record(place, None, NOT_UTF8)
            return _checked(place, value, escapes=bool(SURROGATE.search(spelled)))

    def _found(self, begins: re.Pattern[str]) -> re.Match[str] | None:
        # Rows that begin in the line of their list begin no line.
        return begins.search(self._text, self._at + 1) if self._indent is not None else None

    def _broken(self, reason: Reason) -> Record:
        return Record(f"{self._path}: row {max(self._number, 1)}", None, reason)

    def _passed_over(self, reason: Reason, fault: str) -> Record:
        """Goes to the next line that begins as rows do. Raises DataInvalid where there is none."""
        comma, indent = r"(?:,[ \t]*)", re.escape(self._indent or "")
        begins = re.compile(rf"\n(?:{indent}{comma}?|{comma})\{{|\n\]")
        while (found := self._found(begins)) is None:
            held = len(self._text)
            self._at = max(self._at, held - 200)
            if not self._read():
                remedy = "write a row on each line (JSON lines)"
                place = f"{self._path}: row {self._number}"
                raise DataInvalid(place, f"not JSON from here on ({fault})", remedy)
        self._at = found.end() - 1
        return self._broken(reason)


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
                yield _checked(f"{path}: row {number}", row, escapes=True)
            return
    yield from map(_rechecked, chain([first], [second] if second is not None else [], records))


def _rechecked(record: Record) -> Record:
    """A row that looked like an object around rows, and is none."""
    if record.row is not None and _list_of_rows(record.row) and has_half_pair(record.row):
        return Record(record.place, None, HALF_A_PAIR)
    return record


def _list_of_rows(value: Row) -> str | None:
    """The name of the one list of objects in an object that may be around rows."""
    lists = [name for name, each in value.items() if isinstance(each, list)]
    if len(lists) != 1 or lists[0] in CONVERSATION_COLUMNS or ROLE_NAMES & value.keys():
        return None
    return lists[0] if _are_rows(value[lists[0]]) else None


def _are_rows(values: list[Any]) -> bool:
    """Whether a list holds rows: objects, and no turns, which name their speaker."""
    dicts = bool(values) and all(isinstance(value, dict) for value in values)
    return dicts and not all({"role", "from"} & value.keys() for value in values)


def _rows_inside(path: Path, data: Row) -> list[Row] | None:
    """The rows that an object wraps; None where it is a row: its list may be turns or options.

    Raises DataInvalid for what pandas and datasets write by columns or by splits."""
    lists = {name: value for name, value in data.items() if isinstance(value, list)}
    rows = {name for name, value in lists.items() if _are_rows(value)}
    wrapped = _list_of_rows(data)
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


def _incomplete(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text could mend it."""
    return error.pos >= len(text) - _NEAR_END or error.msg.startswith("Unterminated string")


def _cut_off(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text ends where something should follow, a word or a number in its middle."""
    unterminated = error.msg.startswith("Unterminated string")
    return unterminated or re.fullmatch(r"[\w.+\\-]*\s*", text[error.pos :]) is not None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _KeyTwiceError
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
