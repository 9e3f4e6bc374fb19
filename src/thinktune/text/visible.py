"""What of a text can be seen: by a person, on a terminal, as characters at all.

`llm` reads replies and fills prompts with it, reports of evaluation show model text through it.
"""


def printable(text: str) -> str:
    """The text with a space for each character that does not print: a terminal would obey it."""
    return "".join(character if character.isprintable() else " " for character in text)


def shows_nothing(text: str) -> bool:
    """Whether there is nothing to see: no character at all, spaces, zero-width characters."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def has_half_character(text: str) -> bool:
    """Whether half a surrogate pair is in it, which JSON can spell and UTF-8 cannot."""
    return any("\ud800" <= char <= "\udfff" for char in text)
