"""What readers give: a row or the reason why there is none, and where it stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinktune.text.conversation import Reason

Row = dict[str, Any]

NOT_UTF8 = Reason(
    "not UTF-8 text", "save the file as UTF-8, for example iconv -f GBK -t UTF-8 OLD > NEW"
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


def has_half_pair(value: object) -> bool:
    """Whether any text in it is no text: JSON can spell what UTF-8 has not."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return True
        return False
    if isinstance(value, Mapping):
        return any(has_half_pair(k) or has_half_pair(v) for k, v in value.items())
    return isinstance(value, list) and any(has_half_pair(part) for part in value)
