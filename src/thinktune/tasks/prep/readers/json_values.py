"""JSON values one after the other, wherever lines end, held one at a time.

Called by `json_rows`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from thinktune.schema.errors import DataInvalid
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
INDENT = 200
"""Characters that may stand before a row in its line."""
BETWEEN = re.compile(r"[\s,\ufeff]*")
_NEAR_END = 16
"""An error so close to the end of what was read may be an escape or a number that goes on."""


class KeyTwiceError(ValueError):
    """An object names a value twice; JSON leaves open which of them counts."""


def checked(place: str, value: object, *, escapes: bool) -> Record:
    """The value as a row, or why it is none. With `escapes` its text is held against UTF-8."""
    if not isinstance(value, dict):
        return Record(place, None, NOT_AN_OBJECT)
    # In an object around a list of rows, each row is looked at by itself.
    if escapes and not list_of_rows(value) and has_half_pair(value):
        return Record(place, None, HALF_A_PAIR)
    return Record(place, value)


class Values:
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
            between = BETWEEN.match(self._text, self._at)
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
                value, end = DECODER.raw_decode(self._text, self._at)
            except KeyTwiceError:
                _, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
                return self._broken(KEY_TWICE)
            except RecursionError:
                return self._passed_over(TOO_DEEP, TOO_DEEP.text)
            except json.JSONDecodeError as error:
                if incomplete(error, self._text) and self._read():
                    continue
                if self._ended and cut_off(error, self._text):
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
            return checked(place, value, escapes=bool(SURROGATE.search(spelled)))

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


def list_of_rows(value: Row) -> str | None:
    """The name of the one list of objects in an object that may be around rows."""
    lists = [name for name, each in value.items() if isinstance(each, list)]
    if len(lists) != 1 or lists[0] in CONVERSATION_COLUMNS or ROLE_NAMES & value.keys():
        return None
    return lists[0] if are_rows(value[lists[0]]) else None


def are_rows(values: list[Any]) -> bool:
    """Whether a list holds rows: objects, and no turns, which name their speaker."""
    dicts = bool(values) and all(isinstance(value, dict) for value in values)
    return dicts and not all({"role", "from"} & value.keys() for value in values)


def incomplete(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text could mend it."""
    return error.pos >= len(text) - _NEAR_END or error.msg.startswith("Unterminated string")


def cut_off(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text ends where something should follow, a word or a number in its middle."""
    unterminated = error.msg.startswith("Unterminated string")
    return unterminated or re.fullmatch(r"[\w.+\\-]*\s*", text[error.pos :]) is not None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise KeyTwiceError
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_object)
