"""Prompt templates: columns of a row in braces, and nothing else that braces could do in Python.
`generate` renders them; evaluation's judge can.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.text.visible import has_half_character, shows_nothing

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class NotTextError(ValueError):
    """A column whose value cannot stand in a prompt; the message is the reason to count."""


class Template:
    """A text with columns in braces. `{{` and `}}` are braces themselves.

    Raises SpecInvalid for a brace without its other, and for what is no column's name.
    """

    def __init__(self, text: str, place: str) -> None:
        self._place = place
        self._pieces: list[str] = [""]
        """Text and column by turns."""
        at = 0
        for found in _PIECE.finditer(text):
            self._pieces[-1] += text[at : found.start()]
            at = found.end()
            if found[0] in ("{{", "}}"):
                self._pieces[-1] += found[0][0]
            elif found[1] is None or not found[1].strip():
                fault = f"there is a '{found[0]}' on its own"
                raise SpecInvalid(place, fault, "write {{ and }} for braces, {column} for a column")
            else:
                self._pieces += [found[1].strip(), ""]
        self._pieces[-1] += text[at:]

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it names."""
        return frozenset(self._pieces[1::2])

    def check(self, known: Iterable[str]) -> None:
        """Raises SpecInvalid, with near misses, for a column that the rows do not have."""
        there = set(known)
        for column in sorted(self.columns - there):
            fault = f"there is no column '{column}'"
            raise SpecInvalid(self._place, fault, near_misses(column, there))

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row. Raises NotTextError where a column holds no text."""
        pieces = list(self._pieces)
        for place in range(1, len(pieces), 2):
            pieces[place] = text_of_column(row, pieces[place])
        return "".join(pieces)


def text_of_column(row: Mapping[str, Any], column: str) -> str:
    """A column's value as text: text that shows something, or a number as JSON spells it.

    Raises NotTextError for all else: never Python's spelling of a list, of NaN, of True.
    """
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NotTextError(f"{'no' if value is None else 'not_text'}:{column}")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotTextError(f"no:{column}")
        return repr(value)
    if is_blank(value):
        raise NotTextError(f"no:{column}")
    if has_half_character(value):
        raise NotTextError(f"not_text:{column}")
    return value


def is_blank(value: Any) -> bool:
    """Whether a value is null, NaN, or text that shows nothing: spaces, zero-width characters."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, str):
        return shows_nothing(value)
    return value is None
