"""What of a text can be seen: by a person, on a terminal, as characters at all.

`llm` reads replies and fills prompts with it, reports of evaluation show model text through it.
"""

import unicodedata

BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Fillers of Hangul and the empty pattern of Braille."""


def printable(text: str) -> str:
    """The text with a space for each character that does not print: a terminal would obey it."""
    return "".join(character if character.isprintable() else " " for character in text)


def shows_nothing(text: str) -> bool:
    """Whether there is nothing to see: no character at all, spaces, zero-width characters."""
    return not any(
        char.isprintable() and not char.isspace() and not _is_blank(char) for char in text
    )


def _is_blank(char: str) -> bool:
    """Whether a character that counts as printable has no ink of its own."""
    return char in BLANKS or (ord(char) > 0x2FF and unicodedata.category(char).startswith("M"))


def has_half_character(text: str) -> bool:
    """Whether half a surrogate pair is in it, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
