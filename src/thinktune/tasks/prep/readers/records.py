"""What readers give: a row or the reason why there is none, and where it stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinktune.text.conversation import Reason, Unusable
from thinktune.text.visible import has_half_character

Row = dict[str, Any]

NOT_UTF8 = Reason(
    "not UTF-8 text",
    "save the file as UTF-8 (in Excel: CSV UTF-8; else iconv -f ITS-ENCODING -t UTF-8)",
)
HALF_A_PAIR = Reason(
    "half a surrogate pair, which is no character", "write the text again, whole characters only"
)
TOO_DEEP = Reason(
    "lists or objects nested too deeply", "write rows whose columns hold texts or lists of turns"
)
NOT_AN_OBJECT = Reason(
    "a row that is no object", "write each row as an object with a name for each value"
)
KEY_TWICE = Reason("a name stands twice in one object", "name the columns of each row differently")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of half a character beyond U+FFFF; only two of them make text."""
UNDECODED = re.compile(r"[\udc80-\udcff]")
"""What stands for bytes that are not of the file's encoding (`errors="surrogateescape"`)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file."""

    place: str
    """File and line or row number, for people."""
    row: Row | None
    """None where it could not be read."""
    broken: Reason | None = None
    """Why it could not be read."""

    def read(self) -> Row:
        """The row. Raises Unusable where it could not be read."""
        if self.row is None:
            assert self.broken is not None
            raise Unusable(self.broken)
        return self.row


def has_half_pair(value: object) -> bool:
    """Whether any text in it is no text: JSON can spell what UTF-8 has not."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            if has_half_character(part):
                return True
        elif isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            waiting += part
    return False
