"""One value of a row as text, or the reason why it is none.

Called by `rows`, `conversations` and `selection`. Datasets hold NaN where nothing is, lists where
a text was meant, true and false: none of it becomes text by being printed.
"""

import ast
import math
import re
from collections.abc import Mapping

from thinktune.text.conversation import Reason, Unusable
from thinktune.text.visible import has_half_character, shows_nothing

SWITCHES = frozenset(
    [
        *("on", "off", "true", "false", "yes", "no", "none", "null", "n/a", "0", "1", "0.0", "1.0"),
        *("minimal", "low", "medium", "high", "xhigh", "max", "detailed", "short", "long"),
        *("think", "no_think", "/think", "/no_think", "enabled", "disabled", "auto", "cot"),
        "direct",
    ]
)
"""What says whether or how to reason, and is no reasoning itself."""
PLAIN_FLOATS = (1e-4, 1e15)
"""Between these a number is written as people write it."""
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (list, "a list"),
    (Mapping, "an object"),
    (bytes, "bytes"),
)
PRINTED = re.compile(r"\s*(?:\[['{]|\{').*[\]}]\s*\Z", re.DOTALL)
"""How Python prints a list or an object of texts."""
PRINTED_CHARACTERS = 100_000


def is_missing(value: object) -> bool:
    """Null, and NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: object, column: str, *, strip: bool = True) -> str | None:
    """The value as text; None where there is nothing to see. Raises Unusable for what is no
    text."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        if "\0" in value:
            remedy = "take such characters out of the file"
            raise Unusable(Reason(f"a NUL character in '{column}'", remedy))
        if has_half_character(value):
            remedy = "write the text again, whole characters only"
            raise Unusable(Reason(f"half a surrogate pair in '{column}'", remedy))
        if shows_nothing(value):
            return None if strip else value
        if _is_printed(value):
            remedy = "write the text itself, or JSON of it by json.dumps"
            raise Unusable(Reason(f"'{column}' is Python's text of a list or object", remedy))
        return value.strip() if strip else value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        number = _plain(value)
        if number is not None:
            return number
    remedy = "write it as text, or map another column in data.columns"
    raise Unusable(Reason(f"'{column}' is {_kind(value)}, not text", remedy))


def _is_printed(text: str) -> bool:
    """Whether a text is what Python prints for a list or an object, as `str` and CSV files of
    pandas have it."""
    if len(text) > PRINTED_CHARACTERS or not PRINTED.match(text):
        return False
    try:
        return isinstance(ast.literal_eval(text.strip()), (list, dict))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _plain(value: float) -> str | None:
    if value == int(value) and abs(value) < PLAIN_FLOATS[1]:
        return str(int(value))
    return repr(value) if PLAIN_FLOATS[0] <= abs(value) < PLAIN_FLOATS[1] else None


def _kind(value: object) -> str:
    if isinstance(value, float):
        return "a number without a plain form" if math.isfinite(value) else "an infinite number"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__)
