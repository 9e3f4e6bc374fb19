"""The options of a multiple-choice question, one per line with its letter.

Called by `rows`. Datasets hold them as a mapping of letter to text, a list of texts, a list of
objects, two lists side by side, or a text.
"""

import json
import re
from collections.abc import Mapping

from thinktune.tasks.prep.cells import is_missing, text_of
from thinktune.text.conversation import Reason, Unusable

LETTER_KEYS = ("key", "label", "letter", "id")
TEXT_KEYS = ("value", "text", "content", "option")
ODD = Reason(
    "options that are not understood", "write them as a mapping of letter to text, or as a list"
)


def options_of(value: object, column: str) -> str | None:
    """The options as text; None where there are none. Raises Unusable for what is no list of
    options."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            text_of(value, column)  # which says so where it is Python's text
    if isinstance(value, Mapping):
        listed = _of_mapping(value, column)
    elif isinstance(value, list):
        listed = [_option(position, option, column) for position, option in enumerate(value)]
    else:
        return None if is_missing(value) else text_of(value, column)
    listed = [(letter, text) for letter, text in listed if text]
    # Texts that bring their letters keep them.
    if all(re.match(rf"\(?{re.escape(letter)}[.):]", text) for letter, text in listed):
        return "\n".join(text for _, text in listed) or None
    return "\n".join(f"{letter}. {text}" for letter, text in listed)


def _of_mapping(value: Mapping[str, object], column: str) -> list[tuple[str, str]]:
    letters, texts = value.get("label"), value.get("text")
    if isinstance(letters, list) and isinstance(texts, list) and len(letters) == len(texts):
        return [
            (text_of(letter, column) or "", text_of(text, column) or "")
            for letter, text in zip(letters, texts, strict=True)
        ]
    return [(str(letter), text_of(text, column) or "") for letter, text in value.items()]


def _option(position: int, option: object, column: str) -> tuple[str, str]:
    letter = chr(ord("A") + position) if position < 26 else str(position + 1)
    if not isinstance(option, Mapping):
        return letter, text_of(option, column) or ""
    texts = [name for name in TEXT_KEYS if name in option]
    if not texts:
        raise Unusable(ODD)
    named = next((option[name] for name in LETTER_KEYS if option.get(name) is not None), None)
    return text_of(named, column) or letter, text_of(option[texts[0]], column) or ""
