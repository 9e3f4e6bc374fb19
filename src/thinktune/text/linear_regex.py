"""Regular expressions of a recipe, searched in time that grows with the text and no faster.

Python's own `re` tries what may match again and again: `(a+)+$` on forty letters takes longer than
a job. Recipes' filters call `compile_pattern(pattern, place)` when a recipe is read, and
`search(text)` of what it returns for each row; a row for which that raises `TooCostly` is dropped
and counted.

The engine is Rust's regex crate, which pydantic brings along for the patterns of its own fields.
Letters, digits and word boundaries are Unicode's, as in `re`. By design it has neither
backreferences nor lookaround. What it has not, or reads otherwise than `re`, is refused, never
guessed. Two differences are left: `$` is the end of the text even where that is a newline, and
`\\w` takes combining marks for part of a word.
"""

import re
import warnings
from dataclasses import dataclass

from pydantic_core import SchemaError, SchemaValidator, core_schema

from thinktune.schema.errors import SpecInvalid

MAX_STEPS = 40_000_000
"""Characters of a text times repetitions of a pattern: one or two seconds where the engine has to
follow all of them at once, which it seldom has to."""
_PIECE = re.compile(
    r"\\(?P<escape>.)"
    r"|\[\^?(?P<set>\]?(?:\\.|[^\]\\])*)\]"
    r"|\((?P<group>\?(?:P?<?[=!]|P?<\w+>|P=\w+\)|[>#(]|[a-zA-Z-]*[:)]))?"
    r"|(?P<repeat>[*+?]|\{\d+(?:,\d*)?\})(?P<mode>[?+]?)"
    r"|(?P<end>\))|(?P<atom>.)",
    re.DOTALL,
)
_OPERATION = re.compile(r"&&|--|~~|(?<!\\)\[")
_WITHOUT = {
    "(?=": ("lookahead", "use two filters"),
    "(?!": ("lookahead", "use two filters, one of them with invert: true"),
    "(?<=": ("lookbehind", "use two filters"),
    "(?<!": ("lookbehind", "use two filters, one of them with invert: true"),
    "(?P=": ("backreferences", "write the repeated part out"),
    "(?(": ("conditions", "write both cases with |"),
    "(?>": ("atomic groups", "write (?: instead; no pattern can be slow here"),
    "(?#": ("comments", "leave them out"),
}
"""What begins so is not in the engine, and what to do instead."""


class TooCostly(Exception):
    """A text so long that a pattern of many repetitions might take seconds to search it."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern."""

    source: str
    max_characters: int
    """Longer texts are not searched."""
    _validator: SchemaValidator

    def search(self, text: str) -> bool:
        """Whether the pattern matches somewhere in the text. Raises TooCostly."""
        if len(text) > self.max_characters:
            raise TooCostly(f"longer than {self.max_characters:,} characters")
        return self._validator.isinstance_python(text)


def compile_pattern(pattern: str, place: str) -> Pattern:
    """Compiles a pattern that stands at `place`. Raises SpecInvalid: not a regular expression, or
    one that cannot be searched in linear time."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of set operations, which we refuse
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        fault = f"{pattern!r} is not a regular expression ({error})"
        raise SpecInvalid(place, fault, "correct it") from None
    pieces = list(_PIECE.finditer(pattern))
    for piece in pieces:
        _refuse_differences(piece, pattern, place)
    schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
    try:
        validator = SchemaValidator(schema)
    except SchemaError as error:
        raise _refusal(pattern, place, str(error)) from None
    return Pattern(pattern, MAX_STEPS // max(_repetitions(pieces), 1), validator)


def _refuse_differences(piece: re.Match[str], pattern: str, place: str) -> None:
    """Raises SpecInvalid for what the engine has not, or takes for something else than `re`."""
    text = piece[0]
    for beginning, (name, remedy) in _WITHOUT.items():
        if text.startswith(beginning):
            raise _unable(pattern, place, name, remedy)
    if piece["set"] and _OPERATION.search(piece["set"]):
        raise _unable(pattern, place, "set operations", "escape [, & and ~ in [ ]; put - last")
    if piece["escape"] in ("<", ">"):
        raise _unable(
            pattern, place, f"escapes like \\{piece['escape']}", f"write {piece['escape']} alone"
        )
    if piece["escape"] == "Z":
        raise _unable(
            pattern, place, "escapes like \\Z", "write $, which is the end of the text here"
        )
    if piece["escape"] and piece["escape"] in "0123456789":
        remedy = "write the repeated part out; a character by its code is \\x41"
        raise _unable(pattern, place, "backreferences", remedy)
    if piece["mode"] == "+":
        remedy = "leave the second + out; no pattern can be slow here"
        raise _unable(pattern, place, "possessive quantifiers", remedy)
    if piece["group"] and re.match(r"\?[a-zA-Z]*x", piece["group"]):
        raise _unable(
            pattern, place, "spaces of verbose mode", "write it without spaces and comments"
        )


def _repetitions(pieces: list[re.Match[str]]) -> int:
    """How many repeated parts a pattern has when its counted repetitions are written out."""
    totals, last, inside = [0], 1, [0]
    for piece in pieces:
        if piece["repeat"]:
            counts = [int(count) for count in re.findall(r"\d+", piece["repeat"])]
            times = max(counts, default=1)
            totals[-1] += last * times
            last *= times
        elif piece["end"]:
            nested = totals.pop() if len(totals) > 1 else 0
            last = max(nested, inside.pop() if len(inside) > 1 else 0, 1)
            totals[-1] += nested
        elif piece[0].startswith("(") and not piece[0].endswith(")"):
            totals.append(0)
            inside.append(0)
        else:
            last = 1
            inside[-1] += 1
    return sum(totals)


def _unable(pattern: str, place: str, name: str, remedy: str) -> SpecInvalid:
    return SpecInvalid(place, f"{pattern!r}: {name} cannot be searched in linear time", remedy)


def _refusal(pattern: str, place: str, message: str) -> SpecInvalid:
    if "size limit" in message:
        return SpecInvalid(
            place,
            f"{pattern!r} is too large when its repetitions are written out",
            "repeat fewer times, or use + and *; \\w and \\d are large, [a-z] and [0-9] small",
        )
    reason = message.strip().splitlines()[-1].removeprefix("error: ")
    return SpecInvalid(
        place,
        f"{pattern!r} is not supported as a linear-time pattern ({reason})",
        "escape literal characters with a backslash, or write it in another way",
    )
